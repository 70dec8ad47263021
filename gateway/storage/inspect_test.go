package storage_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

func TestOutdated(t *testing.T) {
	for _, database := range []string{"", storagetest.Postgres(t)} {
		o := storage.Options{DataDir: t.TempDir(), Database: database, Log: slog.New(slog.DiscardHandler)}
		db, err := storage.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		beside, err := storage.OpenReadOnly(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer beside.Close()
		if got, err := beside.Outdated(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("%s: %q %v", db.Dialect(), got, err)
		}
		if at, err := beside.Clock(t.Context()); err != nil || time.Since(at).Abs() > time.Hour {
			t.Errorf("%s: %v %v", db.Dialect(), at, err)
		}
		if _, err := db.SQL().ExecContext(t.Context(), `DELETE FROM storage_schema WHERE version_id > 0`); err != nil {
			t.Fatal(err)
		}
		if got, err := beside.Outdated(t.Context()); err != nil || !slices.Equal(got, []string{"storage: at 0, want 1"}) {
			t.Errorf("%s: %q %v", db.Dialect(), got, err)
		}
	}
}
