package world_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kidoban/kidoban/chatcore/world"
)

var now = time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)

func build(t *testing.T, o world.Options) []world.Organization {
	t.Helper()
	o.Now = now
	w, err := world.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSameSeedSameWorld(t *testing.T) {
	o := world.Options{Organizations: 5, Accounts: 120, Seed: 7}
	same := cmpopts.EquateComparable(netip.Prefix{})
	if d := cmp.Diff(build(t, o), build(t, o), same); d != "" {
		t.Errorf("two worlds of one seed differ: %s", d)
	}
	other := o
	other.Seed = 8
	if cmp.Equal(build(t, o), build(t, other), same) {
		t.Error("two seeds make one world")
	}
}

func TestWorldIsSound(t *testing.T) {
	reserved := netip.MustParsePrefix("198.18.0.0/15")
	people := 0
	emails, domains, passwords := map[string]bool{}, map[string]bool{}, map[string]int{}
	var offices []netip.Prefix
	for _, o := range build(t, world.Options{Organizations: 20, Accounts: 2000, Seed: 1}) {
		if domains[o.Domain] || !strings.HasSuffix(o.Domain, ".example") {
			t.Errorf("domain %s is taken or not reserved", o.Domain)
		}
		domains[o.Domain] = true
		for _, other := range offices {
			if other.Overlaps(o.Office) {
				t.Errorf("offices %s and %s overlap", other, o.Office)
			}
		}
		offices = append(offices, o.Office)
		if !reserved.Overlaps(o.Office) || o.Office.Bits() < reserved.Bits() {
			t.Errorf("office %s is not in %s", o.Office, reserved)
		}
		if len(o.People) < world.PeopleMin {
			t.Errorf("%s has %d people", o.Name, len(o.People))
		}
		for _, p := range o.People {
			people++
			if emails[p.Email] {
				t.Errorf("%s twice", p.Email)
			}
			emails[p.Email] = true
			passwords[p.Password]++
			if utf8.RuneCountInString(p.Password) < 8 {
				t.Errorf("password of %s is too short", p.Email)
			}
			if _, err := time.LoadLocation(p.TimeZone); err != nil {
				t.Error(err)
			}
		}
		for _, r := range o.Rooms {
			in := map[int]bool{}
			for _, m := range r.Members {
				if m < 0 || m >= len(o.People) || in[m] {
					t.Fatalf("room %s of %s: member %d", r.Name, o.Name, m)
				}
				in[m] = true
			}
			for i, m := range r.Messages {
				if !in[m.Author] || m.At.After(now) || i > 0 && m.At.Before(r.Messages[i-1].At) {
					t.Fatalf("room %s of %s: message %+v", r.Name, o.Name, m)
				}
			}
		}
	}
	if people != 2000 {
		t.Errorf("%d people, want 2000", people)
	}
	for p, n := range passwords {
		if n > 3 {
			t.Errorf("%d people share the password %s", n, p)
		}
	}
}

func TestBounds(t *testing.T) {
	for name, o := range map[string]world.Options{
		"none":       {Now: now},
		"too few":    {Organizations: 2, Accounts: 5, Now: now},
		"too many":   {Organizations: 1, Accounts: world.AccountsMax + 1, Now: now},
		"too wide":   {Organizations: world.OrganizationsMax + 1, Accounts: world.AccountsMax, Now: now},
		"no present": {Organizations: 1, Accounts: 3},
	} {
		if _, err := world.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
