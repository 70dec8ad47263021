package guard

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// What goes wrong with every request is a line, not a flood.
func TestComplain(t *testing.T) {
	var out bytes.Buffer
	c := &Core{Log: slog.New(slog.NewTextHandler(&out, nil))}
	for range 1000 {
		c.complain("the sessions are away", "error", "no answer")
		c.complain("the devices are away", "error", "no answer")
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want one of each:\n%s", n, out.String())
	}
}
