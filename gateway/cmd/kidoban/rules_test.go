package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestRulesScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/rules",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Values[gateOf{}] = new(scriptGate)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"gate": scriptStart(t), "login": scriptLogin, "inforce": awaitRule,
		},
	})
}
