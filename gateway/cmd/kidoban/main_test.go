package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	testscript.Main(servers{m}, map[string]func(){"kidoban": main})
}

// servers stops what tests share when they are over.
type servers struct{ m *testing.M }

func (s servers) Run() int { return storagetest.Run(s.m) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			// Caddy looks for a home; the demo for a place of its own.
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TMPDIR", e.Getenv("WORK")+"/tmp")
			return os.Mkdir(e.WorkDir+"/tmp", 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"score": checkScore, "waitup": waitUp, "empty": checkEmpty,
		},
	})
}

// checkScore reads the last command's standard output as the figures of an attack:
//
//	score enforce|observe PEOPLE PAIRS HITS
//
// How fast the machine is, and so who waited or came too late, is not looked at.
func checkScore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: score enforce|observe PEOPLE PAIRS HITS")
	}
	var numbers [3]int
	for i, text := range args[1:] {
		var err error
		numbers[i], err = strconv.Atoi(text)
		ts.Check(err)
	}
	people, pairs, hits := numbers[0], numbers[1], numbers[2]
	var s attackScore
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &s))

	for name, pass := range map[string]simulate.Score{"unprotected": s.Unprotected, "established": s.Passes.Established, "first_day": s.Passes.FirstDay} {
		b := pass.Benign
		if b.DelayedOver1s = 0; b != (simulate.Benign{Logins: b.Logins}) || b.Logins > people || b.Logins < people/2 {
			ts.Fatalf("%s: the office met %+v, want %d log-ins and no harm", name, b, people)
		}
		a := pass.Attack
		if name == "unprotected" || args[0] == "observe" {
			if a.Attempts == pairs && a.AccountsLost != hits || a.FirstAction != nil || a.ReachedBackend != a.Attempts {
				ts.Fatalf("%s: the attack got %+v, want %d accounts, and nobody stopping it", name, a, hits)
			}
			continue
		}
		if a.AccountsLost > 1 || a.FirstAction == nil || *a.FirstAction > 15 || a.ReachedBackend > 15+4 {
			ts.Fatalf("%s: the attack got %+v, want it stopped within 15 attempts and at most one account lost", name, a)
		}
	}
}

// waitUp waits until a demo in a temporary directory below DIR answers, which is
// when its gate has a certificate.
func waitUp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitup DIR")
	}
	pattern := filepath.Join(ts.MkAbs(args[0]), "kidoban-demo-*", "caddy", "certificates", "*", "localhost", "localhost.crt")
	look, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
				return
			}
		case <-late:
			ts.Fatalf("no demo came up: no %s", pattern)
		}
	}
}

// checkEmpty fails when there is anything in DIR.
func checkEmpty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	left, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("%s holds %v", args[0], left)
	}
}
