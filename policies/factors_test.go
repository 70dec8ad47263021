package policies_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// factorPolicy reads a block factors, of lines without their indentation.
func factorPolicy(lines string) (*policies.FactorPolicy, error) {
	text := "factors:\n  " + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n  ") + "\n"
	p, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(text)}})
	return &p.Factors, err
}

func TestFactorsDue(t *testing.T) {
	const (
		none    = policies.NeedNone
		factor  = policies.NeedFactor
		confirm = policies.NeedConfirm
		enrol   = policies.NeedEnrol
	)
	now := time.Date(2027, 4, 10, 9, 0, 0, 0, time.UTC)
	old := now.AddDate(-3, 0, 0)
	date := func(month time.Month, day int) time.Time { return time.Date(2027, month, day, 0, 0, 0, 0, time.UTC) }
	office, home, home6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	// base is an old account without a factor, at home on a device it knows.
	base := policies.FactorContext{Organization: "acme", Roles: []string{"member", "sales"}, Source: home, Country: "JP",
		Device: detectors.Trusted, FirstSeen: old, Now: now, Route: detectors.LoginRoute}
	with := func(change func(*policies.FactorContext)) policies.FactorContext {
		c := base
		change(&c)
		return c
	}
	enrolled := with(func(c *policies.FactorContext) { c.Enrolled = true })
	risky := with(func(c *policies.FactorContext) { c.StepUp = true })
	riskyEnrolled := with(func(c *policies.FactorContext) { c.StepUp, c.Enrolled = true, true })
	from := func(a netip.Addr) policies.FactorContext {
		return with(func(c *policies.FactorContext) { c.Source = a })
	}
	on := func(s detectors.DeviceState) policies.FactorContext {
		return with(func(c *policies.FactorContext) { c.Device = s })
	}
	at := func(now time.Time) policies.FactorContext {
		return with(func(c *policies.FactorContext) { c.Now = now })
	}
	due := func(n policies.Need, rule int) policies.Due { return policies.Due{Need: n, Rule: rule} }
	grace := func(until time.Time, rule int) policies.Due {
		return policies.Due{Need: confirm, GraceUntil: until, Rule: rule}
	}
	for _, test := range []struct {
		policy, name string
		c            policies.FactorContext
		want         policies.Due
	}{
		{"", "shipped, no factor", base, due(none, 0)},
		{"", "shipped, a factor", enrolled, due(factor, 1)},
		{"", "shipped, no factor and a step-up", risky, due(confirm, 2)},
		{"", "shipped, a factor and a step-up", riskyEnrolled, due(factor, 1)},

		{"require: []", "nothing required", enrolled, due(none, 0)},
		{"require: []", "a step-up alone, no factor", risky, due(confirm, 0)},
		{"require: []", "a step-up alone, a factor", riskyEnrolled, due(factor, 0)},
		{"require: {need: none}", "none asks nothing", enrolled, due(none, 0)},
		{"require: {need: none}", "none does not quiet a step-up", risky, due(confirm, 0)},
		{"require: {need: enrolled}", "enrolled does not quiet a step-up", risky, due(confirm, 0)},
		{"require: {need: confirm}", "no factor", base, due(confirm, 1)},
		{"require: {need: confirm}", "a factor", enrolled, due(factor, 1)},
		{"require: {need: factor}", "an old account", base, due(enrol, 1)},
		{"require: {need: factor}", "a factor", enrolled, due(factor, 1)},
		{"require: {need: factor}", "an old account and a step-up", risky, due(enrol, 1)},

		{"require: {need: factor}", "the first login", with(func(c *policies.FactorContext) { c.FirstSeen = time.Time{} }), grace(now.AddDate(0, 0, 14), 1)},
		{"require: {need: factor}", "a new account", with(func(c *policies.FactorContext) { c.FirstSeen = now.AddDate(0, 0, -13) }), grace(now.AddDate(0, 0, 1), 1)},
		{"require: {need: factor}", "14 days old", with(func(c *policies.FactorContext) { c.FirstSeen = now.AddDate(0, 0, -14) }), due(enrol, 1)},
		{"require: {need: factor}\ngrace: 0", "no grace", with(func(c *policies.FactorContext) { c.FirstSeen = time.Time{} }), due(enrol, 1)},
		{"require: {need: factor, from: 2027-04-01}", "before", at(date(3, 1)), grace(date(4, 15), 1)},
		{"require: {need: factor, from: 2027-04-01}", "before, a factor", with(func(c *policies.FactorContext) { c.Now, c.Enrolled = date(3, 1), true }), due(factor, 1)},
		{"require: {need: factor, from: 2027-04-01}", "in the time of grace", base, grace(date(4, 15), 1)},
		{"require: {need: factor, from: 2027-04-01}", "a moment before its end", at(date(4, 15).Add(-1)), grace(date(4, 15), 1)},
		{"require: {need: factor, from: 2027-04-01}", "at its end", at(date(4, 15)), due(enrol, 1)},
		{"require: {need: factor, from: 2027-04-01}", "came later", with(func(c *policies.FactorContext) { c.FirstSeen, c.Now = date(4, 8), date(4, 20) }), grace(date(4, 22), 1)},
		{"require: {need: factor, from: '2027-04-01T09:00:00+09:00'}", "in its own zone", base, grace(date(4, 15), 1)},
		{"require: {need: factor, from: 2027-04-01}\ngrace: 0", "a date alone, before", at(date(3, 31)), grace(date(4, 1), 1)},
		{"require: {need: factor, from: 2027-04-01}\ngrace: 0", "a date alone, then", at(date(4, 1)), due(enrol, 1)},
		{"require: {need: factor, from: 2027-04-01}", "a step-up in the time of grace", risky, grace(date(4, 15), 1)},

		{"require: [{need: enrolled}, {need: factor}, {need: confirm}]", "the strictest", base, due(enrol, 2)},
		{"require: [{need: confirm}, {need: confirm}]", "the first of equals", base, due(confirm, 1)},
		{"require: [{need: confirm}, {need: factor, from: 2027-04-01}]", "confirm, and grace", base, grace(date(4, 15), 2)},
		{"require: [{need: factor, from: 2027-04-05}, {need: factor, from: 2027-04-01}, {need: factor, from: 2027-04-02}]", "the earliest end", base, grace(date(4, 15), 2)},
		{"require: [{need: factor, from: 2027-06-01}, {need: factor}]", "one without a date", base, due(enrol, 2)},

		{"require: {need: confirm, organizations: [initech, acme]}", "the organization", base, due(confirm, 1)},
		{"require: {need: confirm, organizations: ACME}", "another organization", base, due(none, 0)},
		{"require: {need: confirm, organizations: acme}", "no organization", with(func(c *policies.FactorContext) { c.Organization = "" }), due(none, 0)},
		{"require: {need: confirm, roles: [admin, sales]}", "one of the roles", base, due(confirm, 1)},
		{"require: {need: confirm, roles: [admin]}", "another role", base, due(none, 0)},
		{"require: {need: confirm, roles: [admin]}", "no roles", with(func(c *policies.FactorContext) { c.Roles = nil }), due(none, 0)},
		{"require: {need: confirm, networks: [192.0.2.0/24, '2001:db8::/48']}", "in the network", from(office), due(confirm, 1)},
		{"require: {need: confirm, networks: [192.0.2.0/24, '2001:db8::/48']}", "in the network, IPv6", from(home6), due(confirm, 1)},
		{"require: {need: confirm, networks: [192.0.2.0/24]}", "not in the network", base, due(none, 0)},
		{"require: {need: confirm, networks: 203.0.113.9}", "one address", base, due(confirm, 1)},
		{"require: {need: confirm, networks: [192.0.2.0/24]}", "IPv4 in IPv6", from(netip.MustParseAddr("::ffff:192.0.2.7")), due(confirm, 1)},
		{"require: {need: confirm, networks: ['fe80::/10']}", "with a zone", from(netip.MustParseAddr("fe80::1%eth0")), due(confirm, 1)},
		{"require: {need: confirm, networks: [192.0.2.0/24]}", "in a network not known", from(netip.Addr{}), due(confirm, 1)},
		{"require: {need: confirm, outside: [192.0.2.0/24]}", "outside", base, due(confirm, 1)},
		{"require: {need: confirm, outside: [192.0.2.0/24]}", "not outside", from(office), due(none, 0)},
		{"require: {need: confirm, outside: [192.0.2.0/24]}", "outside, IPv6", from(home6), due(confirm, 1)},
		{"require: {need: confirm, outside: [192.0.2.0/24]}", "not known is outside", from(netip.Addr{}), due(confirm, 1)},
		{"require: {need: confirm, networks: [203.0.113.0/24], outside: [203.0.113.9/32]}", "in one and not outside the other", base, due(none, 0)},
		{"require: {need: confirm, countries: [us, jp]}", "the country", base, due(confirm, 1)},
		{"require: {need: confirm, countries: [NO]}", "another country", base, due(none, 0)},
		{"require: {need: confirm, countries: [NO]}", "no country known", with(func(c *policies.FactorContext) { c.Country = "" }), due(confirm, 1)},
		{"require: {need: confirm, devices: [none, stranger, forked]}", "trusted", base, due(none, 0)},
		{"require: {need: confirm, devices: [none, stranger, forked]}", "on probation", on(detectors.Probation), due(none, 0)},
		{"require: {need: confirm, devices: [none, stranger, forked]}", "a stranger", on(detectors.Stranger), due(confirm, 1)},
		{"require: {need: confirm, devices: [none, stranger, forked]}", "none", on(detectors.NoDevice), due(confirm, 1)},
		{"require: {need: confirm, devices: [none, stranger, forked]}", "forked", on(detectors.Forked), due(confirm, 1)},
		{"require: {need: confirm, devices: [none, stranger, forked]}", "a state to come", on("borrowed"), due(confirm, 1)},
		{"require: {need: confirm, devices: [probation, none, stranger, forked]}", "on probation", on(detectors.Probation), due(confirm, 1)},
		{"require: {need: confirm, devices: [none, stranger, forked, probation, trusted]}", "every device", base, due(confirm, 1)},
		{"require: {need: factor, risk: step_up}", "no risk", base, due(none, 0)},
		{"require: {need: factor, risk: step_up}", "risk", risky, due(enrol, 1)},
		{"require: {need: confirm, routes: [login]}", "the route", base, due(confirm, 1)},
		{"require: {need: confirm, routes: [token_mint, sensitive]}", "another route", base, due(none, 0)},
		{"require: {need: confirm, routes: [token_mint]}", "a route without a class", with(func(c *policies.FactorContext) { c.Route = detectors.Other }), due(none, 0)},
		{"require: {need: confirm, organizations: acme, roles: admin}", "one of two conditions", base, due(none, 0)},
		{"require: {need: confirm, organizations: acme, roles: sales, countries: JP, routes: login}", "all of four conditions", base, due(confirm, 1)},
	} {
		p := new(policies.FactorPolicy)
		shipped, err := policies.LoadPolicy(nil)
		if p = &shipped.Factors; test.policy != "" {
			p, err = factorPolicy(test.policy)
		}
		if err != nil {
			t.Fatalf("%s: %v", test.policy, err)
		}
		if got := p.Due(test.c); got != test.want {
			t.Errorf("%s\n%s: %+v, want %+v", test.policy, test.name, got, test.want)
		}
	}
	if got := (&policies.FactorPolicy{}).Due(enrolled); got != (policies.Due{}) {
		t.Errorf("an empty policy asks for %+v", got)
	}
}

// Risk may add a factor, never remove one: whatever the policy, a login that looks
// worse, comes later or meets one requirement more owes as much or more.
func TestMoreRiskNeverOwesLess(t *testing.T) {
	var (
		from      = time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
		devices   = []detectors.DeviceState{detectors.Trusted, detectors.Probation, detectors.Stranger, detectors.NoDevice, detectors.Forked}
		lists     = []string{"none, stranger, forked", "none, stranger, forked, probation", "none, stranger, forked, probation, trusted"}
		roles     = []string{"member", "admin", "sales"}
		states    = []bool{false, true} // of being enrolled
		countries = []string{"", "JP", "US"}
		nets      = []string{"192.0.2.0/24", "192.0.2.128/25", "2001:db8::/32", "0.0.0.0/0"}
		sources   = []netip.Addr{{}, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}
	)
	rank := map[policies.Need]int{policies.NeedNone: 0, policies.NeedFactor: 1, policies.NeedConfirm: 1, policies.NeedEnrol: 2}
	requirement := rapid.Custom(func(t *rapid.T) string {
		r := "need: " + rapid.SampledFrom([]string{"none", "enrolled", "confirm", "factor"}).Draw(t, "need")
		if strings.HasSuffix(r, "factor") && rapid.Bool().Draw(t, "dated") {
			r += ", from: " + from.AddDate(0, 0, rapid.IntRange(-30, 30).Draw(t, "from")).Format(time.DateOnly)
		}
		for _, c := range []struct {
			format string
			values []string
		}{
			{"organizations: %s", []string{"acme", "initech"}},
			{"roles: %s", roles},
			{"networks: ['%s']", nets},
			{"outside: ['%s']", nets},
			{"countries: %s", []string{"JP", "US"}},
			{"devices: [%s]", lists},
			{"risk: %s", []string{"step_up"}},
			{"routes: %s", []string{"login", "sensitive"}},
		} {
			if rapid.IntRange(0, 4).Draw(t, "with") == 0 {
				r += ", " + fmt.Sprintf(c.format, rapid.SampledFrom(c.values).Draw(t, c.format))
			}
		}
		return "{" + r + "}"
	})
	load := func(t *rapid.T, rules []string) *policies.FactorPolicy {
		p, err := factorPolicy("require: [" + strings.Join(rules, ", ") + "]")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(requirement, 0, 5).Draw(t, "rules")
		p, more := load(t, rules), load(t, append(rules, requirement.Draw(t, "one more")))
		c := policies.FactorContext{
			Organization: rapid.SampledFrom([]string{"", "acme", "initech"}).Draw(t, "organization"),
			FirstSeen:    from.AddDate(0, 0, rapid.IntRange(-60, 0).Draw(t, "first seen")),
			Route:        rapid.SampledFrom([]detectors.RouteClass{detectors.Other, detectors.LoginRoute, detectors.Sensitive}).Draw(t, "route"),
		}
		compare := func(what string, p, q *policies.FactorPolicy, c, worse policies.FactorContext) {
			before, after := p.Due(c), q.Due(worse)
			if rank[after.Need] < rank[before.Need] {
				t.Fatalf("%+v\nowes %+v, and %s only %+v", c, before, what, after)
			}
			if after.Need == policies.NeedConfirm && !before.GraceUntil.IsZero() && (after.GraceUntil.IsZero() || after.GraceUntil.After(before.GraceUntil)) {
				t.Fatalf("%+v\nowes %+v, and %s has more time: %+v", c, before, what, after)
			}
			if worse.StepUp && after.Need == policies.NeedNone {
				t.Fatalf("%+v\n%s: a step-up asks for nothing", c, what)
			}
		}
		// Every context there is, and each with one thing worse.
		for i := range len(sources) * len(countries) * len(devices) * len(states) * 4 {
			take := func(n int) int { d := i % n; i /= n; return d }
			c, device := c, 0
			c.Source, c.Country = sources[take(len(sources))], countries[take(len(countries))]
			device = take(len(devices))
			c.Device, c.Enrolled, c.StepUp = devices[device], states[take(len(states))], take(2) == 1
			c.Now = from.AddDate(0, 0, 20*take(2))
			change := func(what string, worsen func(*policies.FactorContext)) {
				worse := c
				worsen(&worse)
				compare(what, p, p, c, worse)
			}
			change("with a step-up", func(c *policies.FactorContext) { c.StepUp = true })
			change("from an unknown address", func(c *policies.FactorContext) { c.Source = netip.Addr{} })
			change("from an unknown country", func(c *policies.FactorContext) { c.Country = "" })
			change("ten days later", func(c *policies.FactorContext) { c.Now = c.Now.AddDate(0, 0, 10) })
			change("with more roles", func(c *policies.FactorContext) { c.Roles = roles })
			for _, d := range devices[min(device, 2):] { // the last three are worth the same
				change("on a device that is "+string(d), func(c *policies.FactorContext) { c.Device = d })
			}
			compare("with one more requirement", p, more, c, c)
		}
	})
}

func TestFactorsStepUp(t *testing.T) {
	shipped, err := policies.LoadPolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := factorPolicy("sensitive: {within: 1h, routes: invite}")
	if err != nil {
		t.Fatal(err)
	}
	off, err := factorPolicy("sensitive: {routes: []}")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2027, 4, 10, 9, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name  string
		p     *policies.FactorPolicy
		class detectors.RouteClass
		aal   int
		ago   time.Duration
		want  bool
	}{
		{"just given", &shipped.Factors, detectors.Sensitive, 2, time.Minute, false},
		{"a moment before", &shipped.Factors, detectors.ChangePassword, 2, 15*time.Minute - 1, false},
		{"long ago", &shipped.Factors, detectors.ChangePassword, 2, 15 * time.Minute, true},
		{"by a clock ahead", &shipped.Factors, detectors.TokenMint, 2, -time.Minute, false},
		{"by a clock far ahead", &shipped.Factors, detectors.TokenMint, 2, -time.Hour, true},
		{"never", &shipped.Factors, detectors.ChangeEmail, 2, now.Sub(time.Time{}), true},
		{"of a session without the factor", &shipped.Factors, detectors.Sensitive, 1, time.Minute, true},
		{"any other route", &shipped.Factors, detectors.Other, 1, time.Hour, false},
		{"the login", &shipped.Factors, detectors.LoginRoute, 1, time.Hour, false},
		{"not in its list", &shipped.Factors, detectors.Invite, 1, time.Hour, false},
		{"in a list of one's own", own, detectors.Invite, 2, 59 * time.Minute, false},
		{"in a list of one's own, long ago", own, detectors.Invite, 2, time.Hour, true},
		{"no more in the list", own, detectors.Sensitive, 1, time.Hour, false},
		{"no list", off, detectors.Sensitive, 1, time.Hour, false},
	} {
		if got := test.p.StepUp(test.class, test.aal, now.Add(-test.ago), now); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestFactorsFile(t *testing.T) {
	shipped, err := policies.LoadPolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := factorPolicy(`
totp: asvs-strict
cap: 100
user_verification: required
require:
  - need: factor
    roles: 管理者
    outside: [192.0.2.77/24, 198.51.100.7]
    from: 2027-04-01
remember: 30d
aal2: {idle: 30m}
evidence: {device: 0}
administrators: [admin, owner]
continue: anywhere`)
	if err != nil {
		t.Fatal(err)
	}
	want := shipped.Factors
	want.StrictTOTP, want.Cap, want.UserVerification = true, 100, "required"
	want.Require = []policies.Requirement{{Need: policies.DemandFactor, Roles: []string{"管理者"},
		Outside: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")},
		From:    time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)}}
	want.Remember, want.AAL2.Idle, want.Evidence.Device = 30*24*time.Hour, 30*time.Minute, 0
	want.Administrators, want.Continue = []string{"admin", "owner"}, "anywhere"
	if diff := cmp.Diff(want, *own, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFactorsFaults(t *testing.T) {
	for _, test := range []struct{ lines, want string }{
		{"topt: default", `2:3: factors has no key "topt"`},
		{"totp: strict", `2:9: totp "strict" is none; want one of default, asvs-strict`},
		{"cap: 4", "2:8: cap must be a number from 5 to 100"},
		{"cap: 101", "2:8: cap must be a number from 5 to 100"},
		{"user_verification: discouraged", "want one of preferred, required"},
		{"require: [{risk: step_up}]", `2:13: a requirement needs the key "need"`},
		{"require: [{need: mfa}]", `2:20: need "mfa" is none; want one of none, enrolled, confirm, factor`},
		{"require: [{need: factor, form: 2027-04-01}]", `2:28: a requirement has no key "form"`},
		{"require: [{need: factor, from: 01.04.2027}]", `2:34: from is "01.04.2027"; write a day such as 2027-04-01`},
		{"require: [{need: confirm, from: 2027-04-01}]", "2:35: from is for need: factor only"},
		{"require: [{from: 2027-04-01, need: enrolled}]", "2:20: from is for need: factor only"},
		{"require: [{need: confirm, roles: []}]", "2:36: roles is empty; leave the key out if all are meant"},
		{"require: [{need: confirm, roles: [a, a]}]", `2:40: the role "a" is there already`},
		{"require: [{need: confirm, organizations: [~]}]", "2:45: organization is empty"},
		{`require: [{need: confirm, organizations: "a\tb"}]`, "has control characters"},
		{"require: [{need: confirm, networks: [10.0.0.0]}, {need: confirm, networks: [10.0.0.0/33]}]", `2:79: network "10.0.0.0/33" is not a network`},
		{"require: [{need: confirm, networks: [10.0.0.*]}]", `2:40: network "10.0.0.*" is not a network; write a prefix`},
		{"require: [{need: confirm, outside: ['fe80::1%eth0']}]", `"fe80::1%eth0" is not a network`},
		{"require: [{need: confirm, outside: ['::ffff:0:0/90']}]", "write the IPv4 prefix itself"},
		{"require: [{need: confirm, outside: [[10.0.0.0/8]]}]", "network must be a text, not a list"},
		{"require: [{need: confirm, countries: [Japan]}]", `2:41: country "Japan" is not a country`},
		{"require: [{need: confirm, devices: [stranger]}]", "2:38: devices lacks none, forked: name with each state all that are trusted no more"},
		{"require: [{need: confirm, devices: [none]}]", "devices lacks stranger, forked"},
		{"require: [{need: confirm, devices: [none, stranger, forked, trusted]}]", "devices lacks probation"},
		{"require: [{need: confirm, devices: [unknown]}]", `device "unknown" is none`},
		{"require: [{need: confirm, risk: high}]", `risk "high" is none; want one of step_up`},
		{"require: [{need: confirm, routes: [logout]}]", `route "logout" is none; want one of login, change_password`},
		{"require: [{need: confirm, routes: []}]", "routes is empty"},
		{"require: [" + strings.Repeat("{need: enrolled},", 65) + "]", "require has 65 items; at most 64"},
		{"require: [{need: confirm, roles: [" + strings.Repeat("a,", 257) + "]}]", "roles has 257 items; at most 256"},
		{"require: factor", "a requirement must be a mapping, not a single value"},
		{"grace: 91d", "grace is \"91d\"; write a duration"},
		{"remember: 31d", "remember is \"31d\""},
		{"sensitive: {within: 30s}", "within is \"30s\""},
		{"sensitive: {routes: [login]}", `route "login" is none`},
		{"aal2: {idle: 25h}", "2:9: idle is longer than overall"},
		{"aal2: {overall: 31d}", "overall is \"31d\""},
		{"evidence: {device: 12h}", "2:22: device is 12h; write 1d or longer, or 0"},
		{"evidence: {device: 0, mail: false, code: false}", "2:13: nothing is evidence"},
		{"evidence: {mail: 1}", "mail must be true or false"},
		{"administrators: [admin, admin]", `the role "admin" is there already`},
		{"recovery: {wait: 1h}", "wait is \"1h\""},
		{"continue: everywhere", "want one of same_network, anywhere"},
		{"hold: 1h", "hold is \"1h\""},
		{"totp: x\ncap: 1", "policy.yaml:3:8: cap"}, // all are told
	} {
		if p, err := factorPolicy(test.lines); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.100s\n%v, want an error with\n%s\nbut have %+v", test.lines, err, test.want, p.Require)
		}
	}
}

func TestDueAllocatesNothing(t *testing.T) {
	p, err := factorPolicy("require: [{need: confirm, networks: [10.0.0.0/8], roles: [admin]}, {need: factor, outside: [10.0.0.0/8], devices: [none, stranger, forked]}]")
	if err != nil {
		t.Fatal(err)
	}
	c := policies.FactorContext{Roles: []string{"member"}, Source: netip.MustParseAddr("203.0.113.9"), Country: "JP", Now: time.Date(2027, 4, 10, 9, 0, 0, 0, time.UTC)}
	if n := testing.AllocsPerRun(100, func() {
		if p.Due(c).Need != policies.NeedConfirm {
			t.Error("the first login is asked for more, or less, than a confirmation")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
