package breached_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/breached"
)

func TestPasswords(t *testing.T) {
	var c clock
	var said bytes.Buffer
	p := breached.New(slog.New(slog.NewTextHandler(&said, nil)), c.now)
	check := func(when string, want map[string]bool) {
		t.Helper()
		for password, want := range want {
			if got := p.Breached(t.Context(), password); got != want {
				t.Errorf("%s: %q is breached: %v, want %v", when, password, got, want)
			}
		}
	}
	use := func(file, address string) {
		t.Helper()
		if err := p.Use(file, address); err != nil {
			t.Fatal(err)
		}
	}
	check("with nothing", map[string]bool{"old": false, "": false})
	if s := p.Status(); s != (breached.Status{}) {
		t.Errorf("with nothing: %+v", s)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "list")
	use(file, "")
	if s := p.Status(); !s.Named || s.Fault == nil || s.Keys != 0 {
		t.Errorf("with a file that is not there: %+v", s)
	}
	build(t, file, "old")
	p.Look() // it may be half written
	check("at the first look", map[string]bool{"old": false})
	p.Look()
	check("when it is there", map[string]bool{"old": true, "new": false})
	if s := p.Status(); s.Fault != nil || s.Keys != 1 || s.Date.IsZero() {
		t.Errorf("when it is there: %+v", s)
	}

	write(t, file, "half of a fi")
	p.Look()
	p.Look()
	check("when it is bad", map[string]bool{"old": true})
	if s := p.Status(); s.Fault == nil || s.Keys != 1 {
		t.Errorf("when it is bad: %+v", s)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.Look()
	p.Look()
	check("when it is gone", map[string]bool{"old": true})
	build(t, file, "new", "newer")
	p.Look()
	p.Look()
	check("when it is replaced", map[string]bool{"old": false, "new": true, "newer": true})
	if s := p.Status(); s.Fault != nil || s.Keys != 2 {
		t.Errorf("when it is replaced: %+v", s)
	}

	s := newServer(t, "only there")
	use(file, s.URL+"/api")
	check("with both", map[string]bool{"new": true, "only there": true, "nowhere": false})
	asked := s.asked.Load()
	check("again", map[string]bool{"new": true, "only there": true})
	if n := s.asked.Load(); n != asked || asked != 2 {
		t.Errorf("asked %d times, then %d: want 2, since the file knows one and one was asked", asked, n)
	}
	use(file, s.URL+"/api") // as a reload of the configuration does
	check("after a reload", map[string]bool{"only there": true})
	if n := s.asked.Load(); n != asked {
		t.Error("a reload forgot what was asked")
	}
	s.answers(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	for _, password := range []string{"a", "b", "c", "d", "e", "f"} {
		check("when the server fails", map[string]bool{password: false})
	}
	if st := p.Status(); !st.Asks || !st.Asked.Open {
		t.Errorf("when the server fails: %+v", st)
	}
	if err := p.Use(file, "http://example.com"); err == nil {
		t.Error("a server without TLS was taken")
	}
	use("", "")
	check("when all is taken out", map[string]bool{"new": false, "only there": false})
	for _, secret := range []string{"only there", line("only there", 1)[:40]} {
		if strings.Contains(said.String(), secret) {
			t.Errorf("the log tells %s", secret)
		}
	}
}
