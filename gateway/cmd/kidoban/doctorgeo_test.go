package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"

	"github.com/kidoban/kidoban/gateway"
)

func TestDoctorsPlaces(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for name, ago := range map[string]int{"new": 3, "old": 91} {
		tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-Country", BuildEpoch: now.AddDate(0, 0, -ago).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, name+".mmdb"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.WriteTo(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.mmdb"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := doctor{now: func() time.Time { return now }}
	var files []string
	for _, name := range []string{"new", "old", "bad", "none"} {
		files = append(files, filepath.Join(dir, name+".mmdb"))
	}
	d.checkPlaces(&configured{app: &gateway.App{GeoIP: files}})
	want := []struct{ status, detail string }{
		{fine, "new.mmdb tells of countries, and is of 2026-10-29"}, {warned, "old.mmdb is 91 days old"}, {failed, "bad.mmdb: not a MaxMind"}, {failed, "none.mmdb"},
	}
	if len(d.found) != len(want) {
		t.Fatalf("found %+v, want %d findings", d.found, len(want))
	}
	for i, w := range want {
		if f := d.found[i]; f.Status != w.status || f.Check != "geoip" || !strings.Contains(f.Detail, w.detail) {
			t.Errorf("found %+v, want %s: %q", f, w.status, w.detail)
		}
	}
}
