package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/storage"
)

// The scripts find a data_dir in "data", whose accounts acc-0 to acc-2 log in as user0@example.com
// and so on, with the database open as a gate has it, and an operators' API at $API that
// takes decisions on all accounts but acc-2 when the key is right.
func TestBreachedScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script/breached",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("API", operatorsAPI(t, e.Defer))
			return seedNames(t, filepath.Join(e.WorkDir, "data"), e.Defer)
		},
	})
}

func seedNames(t *testing.T, dir string, later func(func())) error {
	db, err := storage.Open(t.Context(), storage.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	later(func() { _ = db.Close() })
	ring, err := db.OpenKeyring(t.Context())
	if err != nil {
		return err
	}
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return err
	}
	directory := auth.NewDirectory(store)
	for i := range 3 {
		name := ring.Digest("name", auth.CanonicalName(fmt.Sprintf("user%d@example.com", i)))
		if _, err := directory.Learn(t.Context(), auth.Person{Subject: fmt.Sprint("acc-", i)}, name, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func operatorsAPI(t *testing.T, later func(func())) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d struct{ Scope, Value, Action, TTL, Reason string }
		err := json.NewDecoder(r.Body).Decode(&d)
		switch {
		case r.Header.Get("Authorization") != "Bearer a-key-of-an-operator":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"title":"Who are you?"}`)
		case err != nil || r.Method != "POST" || r.URL.Path != "/v1/decisions" || d.Scope != "account" || d.Action != "step_up" || d.TTL != "168h0m0s" || d.Reason != "in a leaked list" || !strings.HasPrefix(d.Value, "acc-"):
			t.Errorf("the gate was sent %s %s %+v, %v", r.Method, r.URL, d, err)
		case d.Value == "acc-2":
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"title":"Not now","detail":"the record cannot be written"}`)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	later(s.Close)
	return s.URL
}
