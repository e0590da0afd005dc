package archive

import "testing"

func TestExpand(t *testing.T) {
	tests := []struct{ command, want string }{
		{`cp /a/%f %p`, `cp /a/SEG /d/SEG`},
		{`cp "/a/%f" "%p"`, `cp "/a/SEG" "/d/SEG"`},
		{`%%f %%%f %x %`, `%f %SEG %x %`},
		{`%x%f`, `%xSEG`},
		{`%x%%`, `%x%`},
		{`%é%p`, `%é/d/SEG`},
		{`true`, `true`},
		{``, ``},
	}
	for _, tt := range tests {
		got, err := expand(tt.command, "/d/SEG", "SEG")
		if err != nil || got != tt.want {
			t.Errorf("expand(%q) = %q, %v; want %q", tt.command, got, err, tt.want)
		}
	}
	for _, command := range []string{"x %r", "%%%r", "%x%r"} {
		if _, err := expand(command, "p", "f"); err == nil || err.Error() != "cannot use restore_command with %r placeholder" {
			t.Errorf("expand(%q): %v", command, err)
		}
	}
	if got, err := expand("%%r", "p", "f"); err != nil || got != "%r" {
		t.Errorf("expand(%%%%r) = %q, %v", got, err)
	}
}
