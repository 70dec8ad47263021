package account_test

import (
	"slices"
	"testing"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/policies"
)

// TestLettersAreWritten: there are words for all that the desk tells.
func TestLettersAreWritten(t *testing.T) {
	b := newBench(t, auth.NewMemoryStore(), newOutbox())
	p, admin := b.learn("hanako"), b.learn("admin")
	b.post(enrol+"/link", b.hold(p))
	b.bindApp(p.Subject)
	b.bindApp(admin.Subject)
	b.recover(p)
	v := b.session(p, "x")
	b.post(home+"/recovery/cancel", v)
	admin.Roles = []string{"owner"}
	v = b.session(admin, "x")
	v.Fresh = true
	b.post(home+"/help", v, "name", "hanako-name")
	all, _, err := b.Outbox.List(t.Context(), policies.NoticeFilter{}, "", 200)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, n := range all {
		told[n.Template] = true
		if n.Channel != "mail" || !slices.Contains(mail.Templates(), n.Template) {
			t.Errorf("there is no letter %q for %s", n.Template, n.Channel)
		}
		if n.Values["account"] == "" || n.Values["language"] != "en" || n.Values["time_zone"] != "Asia/Tokyo" {
			t.Errorf("%s lacks what every letter has: %v", n.Template, n.Values)
		}
	}
	if len(told) != 5 {
		t.Errorf("told: %v, want five kinds", told)
	}
}
