package policies_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func openLedger(t testing.TB) *policies.Ledger {
	t.Helper()
	l, err := policies.NewLedger(openSQLite(t), "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedger(t *testing.T) {
	for _, name := range places[1:] {
		t.Run(name, func(t *testing.T) {
			l, err := policies.NewLedger(openPlace(t, name).db, name)
			if err != nil {
				t.Fatal(err)
			}
			testLedger(t, l)
		})
	}
}

func testLedger(t *testing.T, l *policies.Ledger) {
	count := func(n int, at time.Time, control string, action rules.Action, reason policies.Reason, rule rules.ID, shadow, device bool) {
		for range n {
			l.Count(at, control, action, reason, rule, shadow, device)
		}
	}
	count(9986, noon.Add(time.Minute), "rules", rules.Refuse, policies.ReasonRule, "stuffing.sequential", true, false)
	count(12, noon.Add(90*time.Minute), "rules", rules.Refuse, policies.ReasonRule, "stuffing.sequential", true, true)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	count(2, noon.Add(time.Minute), "rules", rules.Refuse, policies.ReasonRule, "stuffing.sequential", true, false)
	count(1, noon.Add(2*time.Hour), "limits", rules.Refuse, policies.ReasonLimit, "", false, false)
	count(3, noon.Add(2*time.Hour), "decisions", rules.StepUp, policies.ReasonDecision, "stuffing.sequential", false, false)
	count(1200, noon.Add(2*time.Hour), "login", rules.Allow, policies.ReasonNone, "", false, true)
	count(5, noon.Add(5*time.Hour), "limits", rules.Refuse, policies.ReasonLimit, "", false, false)

	rows, err := l.Report(t.Context(), noon, noon.Add(3*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want := []policies.LedgerRow{
		{Control: "rules", Action: rules.Refuse, Reason: policies.ReasonRule, Rule: "stuffing.sequential", Shadow: true, Count: 9988, First: noon, Last: noon},
		{Control: "login", Action: rules.Allow, Device: true, Count: 1200, First: noon.Add(2 * time.Hour), Last: noon.Add(2 * time.Hour)},
		{Control: "rules", Action: rules.Refuse, Reason: policies.ReasonRule, Rule: "stuffing.sequential", Shadow: true, Device: true, Count: 12, First: noon.Add(time.Hour), Last: noon.Add(time.Hour)},
		{Control: "decisions", Action: rules.StepUp, Reason: policies.ReasonDecision, Rule: "stuffing.sequential", Count: 3, First: noon.Add(2 * time.Hour), Last: noon.Add(2 * time.Hour)},
		{Control: "limits", Action: rules.Refuse, Reason: policies.ReasonLimit, Count: 1, First: noon.Add(2 * time.Hour), Last: noon.Add(2 * time.Hour)},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var b strings.Builder
	if err := policies.WriteReport(&b, rows); err != nil {
		t.Fatal(err)
	}
	goldenText(t, "report.txt", b.String())
	b.Reset()
	if err := policies.WriteReport(&b, nil); err != nil || b.String() != "Nothing was counted in this time.\n" {
		t.Errorf("without rows: got %q, %v", b.String(), err)
	}
	full := errors.New("disk full")
	if err := policies.WriteReport(failing{full}, rows); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestLedgerKeepsWhatItCannotWrite(t *testing.T) {
	db := openSQLite(t)
	l, err := policies.NewLedger(db, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`ALTER TABLE ledger RENAME TO away`); err != nil {
		t.Fatal(err)
	}
	l.Count(noon, "limits", rules.Refuse, policies.ReasonLimit, "", false, false)
	for range 2 {
		if err := l.Flush(t.Context()); err == nil {
			t.Fatal("flushed into nothing")
		}
	}
	if _, err := db.Exec(`ALTER TABLE away RENAME TO ledger`); err != nil {
		t.Fatal(err)
	}
	rows, err := l.Report(t.Context(), noon, noon.Add(time.Hour))
	if err != nil || len(rows) != 1 || rows[0].Count != 1 {
		t.Errorf("got %v, %v, want one count of 1", rows, err)
	}
}

func TestLedgerIsBounded(t *testing.T) {
	l := openLedger(t)
	const names = 40_000
	for i := range names {
		l.Count(noon, "rules", rules.Refuse, policies.ReasonRule, rules.ID(fmt.Sprint("rule.", i)), true, false)
	}
	rows, err := l.Report(t.Context(), noon, noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	total, other := int64(0), int64(0)
	for _, r := range rows {
		total += r.Count
		if r.Rule == "(other)" {
			other += r.Count
		}
	}
	if total != names || other == 0 || len(rows) > 16*1024+1 {
		t.Errorf("got %d rows, %d counted, %d as other; want %d counted in at most 16,385 rows", len(rows), total, other, names)
	}
}

func TestLedgerCountsExactlyInParallel(t *testing.T) {
	l := openLedger(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5000 {
				l.Count(noon, "limits", rules.Refuse, policies.ReasonLimit, "", false, false)
			}
		})
		wg.Go(func() {
			if err := l.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rows, err := l.Report(t.Context(), noon, noon.Add(time.Hour))
	if err != nil || len(rows) != 1 || rows[0].Count != 20_000 {
		t.Errorf("got %v, %v, want one count of 20,000", rows, err)
	}
}

func TestUnknownDialect(t *testing.T) {
	if _, err := policies.NewLedger(nil, "oracle"); err == nil || !strings.Contains(err.Error(), "want sqlite or postgres") {
		t.Errorf("got %v", err)
	}
	if _, err := policies.NewSQLStore(nil, "oracle"); err == nil {
		t.Error("got a store")
	}
}

func BenchmarkLedger(b *testing.B) {
	l := openLedger(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Count(noon, "rules", rules.Refuse, policies.ReasonRule, "stuffing.sequential", true, false)
		}
	})
}
