package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"testing"
)

// TestArrows checks this module.
func TestArrows(t *testing.T) {
	for _, broken := range Check(load(t), Arrows) {
		t.Error(broken)
	}
}

// TestRulesAreAboutSomething: a rule for a package that was renamed would hold for ever.
func TestRulesAreAboutSomething(t *testing.T) {
	layers := map[string]bool{}
	for _, layer := range Arrows.Layers {
		if layers[layer.Package] {
			t.Errorf("two layers for %s", layer.Package)
		}
		layers[layer.Package] = true
		if layer.Why == "" {
			t.Errorf("no reason given for %s", layer.Package)
		}
	}
	for _, layer := range Arrows.Layers {
		for _, may := range layer.May {
			if !layers[may] {
				t.Errorf("%s may import %s, which is no layer", layer.Package, may)
			}
		}
	}
	for _, only := range Arrows.Only {
		for _, in := range only.In {
			if !layers[in] {
				t.Errorf("%s is only for %s, which is no layer", only.Import, in)
			}
		}
	}
	for _, never := range Arrows.Never {
		if !layers[never.Package] {
			t.Errorf("%s must never import %v, but is no layer", never.Package, never.Imports)
		}
	}
	g := load(t)
	for _, pkg := range []string{"cmd/fastrewind", "internal/rewind", "scan", "fetch", "copier", "archive", "internal/plan", "internal/pg", "internal/wal"} {
		if _, ok := g[Module+"/"+pkg]; !ok {
			t.Errorf("go list does not know %s, which the design is about", pkg)
		}
	}
}

// load asks go list for the module's packages, without their tests.
func load(t *testing.T) Graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", Module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	g := Graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		g[pkg.ImportPath] = pkg.Imports
	}
	return g
}
