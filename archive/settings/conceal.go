package settings

import (
	"fmt"
	"io"
)

// What is read here may hold secrets anywhere: in variables, arguments, settings. package fmt does not ask unexported
// fields how they want to be printed, so that the structs around them have to hide them.

func conceal(f fmt.State) { _, _ = io.WriteString(f, "[settings]") }

func (vars) Format(f fmt.State, _ rune)         { conceal(f) }
func (walgSettings) Format(f fmt.State, _ rune) { conceal(f) }
func (setting) Format(f fmt.State, _ rune)      { conceal(f) }
func (pgbr) Format(f fmt.State, _ rune)         { conceal(f) }
func (simple) Format(f fmt.State, _ rune)       { conceal(f) }
func (word) Format(f fmt.State, _ rune)         { conceal(f) }
func (flags) Format(f fmt.State, _ rune)        { conceal(f) }
