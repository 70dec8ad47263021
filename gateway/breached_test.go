package gateway_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/breached"
)

// TestBreachedHealth: health tells how old the list is, and what is wrong with it.
func TestBreachedHealth(t *testing.T) {
	now := time.Now()
	build := func(age time.Duration) string {
		file := filepath.Join(t.TempDir(), "list")
		list := strings.NewReader("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:10\n")
		if _, err := breached.Build(t.Context(), file, []string{"-"}, breached.BuildOptions{Stdin: list, Date: now.Add(-age)}); err != nil {
			t.Fatal(err)
		}
		return file
	}
	foreign := filepath.Join(t.TempDir(), "foreign")
	if err := os.WriteFile(foreign, []byte("a text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options      []string
		status, want string
	}{
		"nothing": {nil, "", ""},
		"list":    {[]string{"breached " + build(50*time.Hour)}, "ok", ", 2 days ago"},
		"old":     {[]string{"breached " + build(366*24*time.Hour)}, "degraded", "make it anew"},
		"foreign": {[]string{"breached " + foreign}, "degraded", "was not made by"},
		"server":  {[]string{"breached_api http://127.0.0.1:1"}, "ok", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, newBackend(t), c.options...)
			var health struct {
				Parts []struct{ Name, Status, Detail string }
			}
			g.operator("GET", "/v1/health", nil, &health)
			status, detail := "", ""
			for _, p := range health.Parts {
				if p.Name == "breached" {
					status, detail = p.Status, p.Detail
				}
			}
			if status != c.status || !strings.Contains(detail, c.want) {
				t.Errorf("= %q, %q, want %q, %q", status, detail, c.status, c.want)
			}
		})
	}
}
