package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"chatcore": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// mode FILE OCTAL checks the permissions of a file.
			"mode": func(ts *testscript.TestScript, neg bool, args []string) {
				info, err := os.Stat(ts.MkAbs(args[0]))
				ts.Check(err)
				if got := info.Mode().Perm().String(); (got == args[1]) == neg {
					ts.Fatalf("%s has mode %s", args[0], got)
				}
			},
		},
	})
}

// TestServe starts the command, asks it and stops it as a signal would.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log, stderr := io.Pipe()
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"serve", "--data", filepath.Join(t.TempDir(), "chat.db"), "--listen", "127.0.0.1:0",
			"--argon2-memory", "64", "--argon2-time", "1", "--argon2-threads", "1"}, io.Discard, stderr)
		stderr.Close()
	}()
	lines := json.NewDecoder(log)
	var first struct{ Msg, Address string }
	if err := lines.Decode(&first); err != nil || first.Msg != "serving" {
		t.Fatalf("%+v, %v", first, err)
	}
	var rest bytes.Buffer
	drained := make(chan struct{})
	go func() { io.Copy(&rest, log); close(drained) }()
	resp, err := http.Get("http://" + first.Address + "/healthz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
	<-drained
	if !bytes.Contains(rest.Bytes(), []byte(`"route":"GET /healthz"`)) {
		t.Errorf("log %s", rest.String())
	}
}
