package guard_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
)

const operator = "operator:test"

// told is how many messages of a template there are for an address.
func (g *gate) told(t *testing.T, template, to string) int {
	t.Helper()
	all, _, err := g.core.Outbox.List(t.Context(), policies.NoticeFilter{Channel: "mail", Template: template, To: to}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// acts are the kinds of the acts on record that an operator did to an account, and
// whatever was taken back.
func (g *gate) acts(t *testing.T, account string) (kinds []string) {
	t.Helper()
	for _, e := range g.entries(t) {
		var body map[string]string
		if err := json.Unmarshal(e.Body, &body); err != nil {
			continue // not of strings alone
		}
		if e.Kind == record.Abandoned || body["by"] == operator && body["account"] == account {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func TestActsOnFactors(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	g.client(t).login(alice, "correct-alice")
	g.enrol(t, alice)
	ctx := t.Context()
	all, err := g.core.Factors.List(ctx, alice)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	id := all[0].ID

	if f, err := g.core.DisableFactor(ctx, alice, id, operator); err != nil || f.State != auth.FactorDisabled || f.DisabledBy != operator {
		t.Errorf("disabled: %+v, %v", f, err)
	}
	if f, err := g.core.EnableFactor(ctx, alice, id, operator); err != nil || f.State != auth.FactorActive {
		t.Errorf("enabled: %+v, %v", f, err)
	}
	if _, err := g.core.RemoveFactor(ctx, mallory, id, operator); !errors.Is(err, auth.ErrNoFactor) {
		t.Errorf("removed from another account: %v", err)
	}
	if f, err := g.core.RemoveFactor(ctx, alice, id, operator); err != nil || f.ID != id {
		t.Errorf("removed: %+v, %v", f, err)
	}
	if all, err := g.core.Factors.List(ctx, alice); err != nil || len(all) != 0 {
		t.Errorf("left are %v, %v", all, err)
	}
	slip, code, err := g.core.IssueEnrolmentCode(ctx, alice, operator)
	if err != nil || slip.Subject != alice || slip.By != operator || !slip.Expires.Equal(g.clock().Add(24*time.Hour)) {
		t.Errorf("a code: %+v, %v", slip, err)
	}
	if _, err := g.core.Slips.Use(ctx, auth.SlipEnrolCode, alice, "", code, "hold", auth.Act{By: "owner"}, g.clock()); err != nil {
		t.Errorf("the code is not good: %v", err)
	}
	if _, _, err := g.core.IssueEnrolmentCode(ctx, "nobody", operator); !errors.Is(err, policies.ErrNotFound) {
		t.Errorf("a code for nobody: %v", err)
	}
	if _, err := g.core.CancelRecovery(ctx, alice, operator); !errors.Is(err, auth.ErrNoSlip) {
		t.Errorf("a recovery that was not begun is stopped: %v", err)
	}
	recovery, _, err := g.core.Slips.Issue(ctx, auth.Slip{Purpose: auth.SlipRecovery, Subject: alice, NotBefore: g.clock().Add(time.Hour)}, auth.Act{By: "owner"}, g.clock())
	if err != nil {
		t.Fatal(err)
	}
	if s, err := g.core.CancelRecovery(ctx, alice, operator); err != nil || s.ID != recovery.ID || s.Cancelled.IsZero() {
		t.Errorf("stopped: %+v, %v", s, err)
	}

	want := []string{"act.factor.disable", "act.factor.enable", "act.abandoned", "act.factor.remove", "act.enrolment.code", "act.recovery.cancel"}
	if got := g.acts(t, alice); !slices.Equal(got, want) {
		t.Errorf("on record are\n%v, want\n%v", got, want)
	}
	for _, e := range g.entries(t) {
		if strings.Contains(string(e.Body), code) {
			t.Errorf("the code stands in %s", e.Kind)
		}
	}
	for _, template := range []string{"factor.enabled", "factor.removed", "enrolment.code", "recovery.cancelled"} {
		if n := g.told(t, template, alice); n != 1 {
			t.Errorf("%s: told %d times, want once", template, n)
		}
	}
	if all, _, err := g.core.Outbox.List(ctx, policies.NoticeFilter{Template: "enrolment.code"}, "", 0); err != nil || len(all) != 1 || strings.Contains(strings.Join(values(all[0]), " "), code) {
		t.Errorf("the message about the code: %v, %v", all, err)
	}
}

func values(n policies.Notice) (all []string) {
	for _, v := range n.Values {
		all = append(all, v)
	}
	return all
}

// A start takes back what was announced and not done to factors, and nothing that was.
func TestStartSettlesActsOnFactors(t *testing.T) {
	g := newGate(t, "hostile", newHostile(), withFactors(t, whoHasOne))
	g.client(t).login(alice, "correct-alice")
	g.enrol(t, alice)
	all, err := g.core.Factors.List(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	announce := func(kind string) auth.Act {
		id, err := g.core.Record.Append(t.Context(), record.Draft{Kind: kind, Body: map[string]string{"account": alice}})
		if err != nil {
			t.Fatal(err)
		}
		return auth.Act{By: operator, Entry: id.String()}
	}
	// The crash came behind these, before anybody was told,
	if _, _, err := g.core.Factors.Disable(t.Context(), alice, all[0].ID, announce("act.factor.disable"), g.clock()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.core.Slips.Issue(t.Context(), auth.Slip{Purpose: auth.SlipEnrolCode, Subject: alice}, announce("act.enrolment.code"), g.clock()); err != nil {
		t.Fatal(err)
	}
	// and before these.
	lost := []string{announce("act.factor.remove").Entry, announce("act.recovery.cancel").Entry}
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	again := settings(t, g.dir, g.keys, g.clock, slog.New(slog.DiscardHandler))
	again.Factors = &guard.FactorSettings{Service: "Example Chat", RPID: "chat.example", Origins: []string{"https://chat.example"}}
	if g.core, err = guard.Open(t.Context(), g.db, g.keys, again); err != nil {
		t.Fatal(err)
	}
	g.core.Mailing.Store(true)
	var taken []string
	for _, e := range g.entries(t, record.Abandoned) {
		for _, id := range lost {
			if strings.Contains(string(e.Body), id) {
				taken = append(taken, id)
			}
		}
	}
	slices.Sort(taken)
	if n := len(g.entries(t, record.Abandoned)); n != 2 || !slices.Equal(taken, lost) {
		t.Errorf("%d entries are taken back, of the lost ones %v, want %v alone", n, taken, lost)
	}
	suspended := func() int { return g.told(t, "factor.disabled", alice) + g.told(t, "factor.suspended", alice) }
	if n := suspended(); n != 0 {
		t.Fatalf("the owner was told %d times before the crash", n)
	}
	for range 2 {
		g.core.Sweep(t.Context())
	}
	if n := suspended(); n != 1 {
		t.Errorf("the owner is told %d times, want once", n)
	}
}

func TestNoSecondFactors(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.client(t).login(alice, "correct-alice")
	ctx := t.Context()
	_, err := g.core.RemoveFactor(ctx, alice, "x", operator)
	_, err2 := g.core.DisableFactor(ctx, alice, "x", operator)
	_, err3 := g.core.EnableFactor(ctx, alice, "x", operator)
	_, _, err4 := g.core.IssueEnrolmentCode(ctx, alice, operator)
	_, err5 := g.core.CancelRecovery(ctx, alice, operator)
	for i, err := range []error{err, err2, err3, err4, err5} {
		if !errors.Is(err, guard.ErrNoFactors) {
			t.Errorf("act %d: %v", i, err)
		}
	}
	if got := g.acts(t, alice); len(got) != 0 {
		t.Errorf("on record are %v", got)
	}
}
