package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/gateway/storage"
)

// TestRecordScripts runs the commands on the samples of package record, whose key
// is known.
func TestRecordScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/record",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			if err := os.CopyFS(e.WorkDir, os.DirFS(filepath.FromSlash("../../record/testdata/samples"))); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "keys.json"), sampleKeyring(t), 0o600)
		},
	})
}

// sampleKeyring has the samples' key for sealing.
func sampleKeyring(t *testing.T) []byte {
	type key struct {
		ID      string `json:"id"`
		Purpose string `json:"purpose"`
		Created string `json:"created"`
		Secret  string `json:"secret"`
	}
	var keys []key
	for i, p := range storage.Purposes() {
		id, secret := "other-"+string(p), string(rune('a'+i))
		if p == storage.Seal {
			id, secret = "key-1", "\x01"
		}
		keys = append(keys, key{id, string(p), "2026-11-23T09:00:00Z", base64.StdEncoding.EncodeToString([]byte(strings.Repeat(secret, 32)))})
	}
	text, err := json.Marshal(map[string]any{"version": 2, "keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
