package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptGate is a gate of a script: a process of the real program in front of a chat in
// which people have accounts.
type scriptGate struct {
	node   *node
	town   *town
	people []*visitor // with the cookies of their devices
}

// gateOf is where a script's values hold its gate.
type gateOf struct{}

// ofScript is a test as nodes and towns want one: what they start ends with the script.
type ofScript struct {
	testing.TB
	ts *testscript.TestScript
}

func (s ofScript) Helper()                           {}
func (s ofScript) Cleanup(f func())                  { s.ts.Defer(f) }
func (s ofScript) Fatal(args ...any)                 { s.ts.Fatalf("%v", args) }
func (s ofScript) Fatalf(format string, args ...any) { s.ts.Fatalf(format, args...) }
func (s ofScript) Errorf(format string, args ...any) { s.ts.Logf(format, args...); s.TB.Fail() }

func (s ofScript) TempDir() string {
	dir, err := os.MkdirTemp(s.ts.Getenv("WORK"), "gate-")
	s.ts.Check(err)
	return dir
}

// scriptStart starts a gate with the rules of a folder, and returns when it answers:
//
//	gate RULES PEOPLE
//
// $API is the address of its operators' API then, and the file key holds a key of it.
func scriptStart(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: gate RULES PEOPLE")
		}
		people, err := strconv.Atoi(args[1])
		ts.Check(err)
		in := ofScript{t, ts}
		g := ts.Value(gateOf{}).(*scriptGate)
		g.town = newTown(in, people)
		for range g.town.people {
			g.people = append(g.people, newVisitor(""))
		}
		g.node = newNode(in, "script", g.town, "rules "+ts.MkAbs(args[0]))
		g.node.start()
		ts.Setenv("API", "http://"+g.node.operators)
		ts.Check(os.WriteFile(ts.MkAbs("key"), []byte(drillKey+"\n"), 0o600))
	}
}

// scriptLogin has people log in, each on a device of their own, which keeps its cookies:
//
//	[!] login ADDRESS FIRST LAST right|wrong
//
// FIRST and LAST are numbers of people, from 1. With right passwords all must get in, and
// with ! none; with wrong ones all must hear that they are wrong.
func scriptLogin(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 || args[3] != "right" && (args[3] != "wrong" || neg) {
		ts.Fatalf("usage: [!] login ADDRESS FIRST LAST right|wrong")
	}
	g := ts.Value(gateOf{}).(*scriptGate)
	first, err := strconv.Atoi(args[1])
	ts.Check(err)
	last, err := strconv.Atoi(args[2])
	ts.Check(err)
	if g.node == nil || first < 1 || last > len(g.people) {
		ts.Fatalf("there is no gate, or it has no people from %d to %d", first, last)
	}
	for i := first; i <= last; i++ {
		v, who := g.people[i-1], g.town.people[i-1]
		v.address = args[0]
		if args[3] == "wrong" {
			who.Password += "!"
		}
		status, err := v.login(context.Background(), g.node, who)
		ts.Check(err)
		switch in := status == http.StatusOK; {
		case args[3] == "wrong":
			if status != http.StatusUnauthorized {
				ts.Fatalf("person %d: a wrong password was answered with %d", i, status)
			}
		case in == neg:
			ts.Fatalf("person %d: the log-in was answered with %d", i, status)
		}
	}
}

// awaitRule waits until the gate has a rule in force in a mode:
//
//	inforce RULE MODE
func awaitRule(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: inforce RULE MODE")
	}
	g := ts.Value(gateOf{}).(*scriptGate)
	look, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for {
		status, body, err := g.node.call(http.MethodGet, "/v1/rules/"+args[0], nil)
		ts.Check(err)
		var rule struct{ Mode string }
		if status == http.StatusOK && json.Unmarshal(body, &rule) == nil && rule.Mode == args[1] {
			return
		}
		select {
		case <-look.C:
		case <-late:
			ts.Fatalf("rule %s is not in force as %s: %d %s", args[0], args[1], status, body)
		}
	}
}
