package account_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/account"
	"github.com/kidoban/kidoban/policies"
)

const home = account.AccountPath

// device completes a login on a new device of the account.
func (b *bench) device(subject string) auth.DeviceView {
	b.t.Helper()
	_, view, err := b.Devices.Complete(b.t.Context(), "", subject, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return view
}

// TestPages shows every page in both languages.
func TestPages(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		for lang, want := range map[string][]string{
			"en": {"Your account", "Second step", "Recovery codes", "Devices", "Sessions", "Sign-in history", "Help a colleague"},
			"ja": {"アカウント", "二要素認証", "リカバリーコード", "端末", "セッション", "ログイン履歴", "ほかの方の設定を手伝う"},
		} {
			b.lang = lang
			p := b.learn("hanako-" + lang)
			b.bindApp(p.Subject)
			p.Roles = []string{"owner"}
			v := b.session(p, "Firefox on Windows")
			b.device(p.Subject)
			b.bindCodes(p.Subject)
			b.get(home, v).says(want...)
			for i, path := range []string{"", "/factors", "/codes", "/devices", "/sessions", "/history", "/help"} {
				if a := b.get(home+path, v).says(want[i]); a.code != http.StatusOK {
					t.Errorf("%s: %d", path, a.code)
				}
				if a := b.send(http.MethodPut, home+path, v, nil); a.code != http.StatusMethodNotAllowed {
					t.Errorf("PUT %s: %d", path, a.code)
				}
			}
			if a := b.get(home+"/nowhere", v); a.code != http.StatusNotFound {
				t.Errorf("nowhere: %d", a.code)
			}
		}
		// Nothing for whoever has no session, or somebody else's.
		p := b.learn("taro")
		for _, v := range []account.Visit{b.hold(p), b.visit(p), {Language: "en"}} {
			v.Language = "en"
			if a := b.get(home, v); a.code != http.StatusNotFound {
				t.Errorf("%d", a.code)
			}
		}
		mixed := b.session(p, "x")
		mixed.Subject = "hanako-en"
		if a := b.get(home, mixed); a.code != http.StatusNotFound {
			t.Errorf("a session of another account: %d", a.code)
		}
	})
}

// TestOthersAreUnknown sends ids of another account in every form there is.
func TestOthersAreUnknown(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		victim, thief := b.learn("hanako"), b.learn("mallory")
		factor := b.bindApp(victim.Subject)
		session := b.session(victim, "Victim's phone")
		device := b.device(victim.Subject)
		b.post(lost, b.hold(victim)).want(http.StatusSeeOther, lost)
		b.happened()
		v := b.session(thief, "Thief's laptop")
		v.Fresh = true
		for _, action := range []string{"", "/rename", "/disable", "/enable", "/remove"} {
			for _, a := range []answer{b.get(home+"/factors/"+factor.ID+action, v), b.post(home+"/factors/"+factor.ID+action, v, "name", "mine")} {
				if a.code != http.StatusNotFound || strings.Contains(a.body, "App of hanako") {
					t.Errorf("%q of another's factor: %d", action, a.code)
				}
			}
		}
		for path, id := range map[string]string{"/sessions": session.Session.ID, "/devices": device.ID} {
			if a := b.post(home+path, v, "id", id); a.code != http.StatusNotFound {
				t.Errorf("%s: %d to %q", path, a.code, a.to)
			}
		}
		b.post(home+"/sessions/others", v).want(http.StatusSeeOther, home+"/sessions?done=ended-all")
		b.post(home+"/recovery/cancel", v)
		for _, path := range []string{"", "/factors", "/codes", "/devices", "/sessions", "/history"} {
			body := b.get(home+path, v).body
			for _, secret := range []string{"hanako", "Victim", factor.ID, session.Session.ID, device.ID, "recover this account"} {
				if strings.Contains(body, secret) {
					t.Errorf("%s shows %q of another account", path, secret)
				}
			}
		}
		if got := b.happened(); len(got) > 0 {
			t.Errorf("on record: %q", got)
		}
		b.wantFactors(victim.Subject, "totp active")
		if open, err := b.Sessions.OfSubject(t.Context(), victim.Subject, b.now); err != nil || len(open) != 1 {
			t.Errorf("the victim's sessions: %v, %v", open, err)
		}
		if open, err := b.Slips.Open(t.Context(), victim.Subject, b.now); err != nil || len(open) != 1 {
			t.Errorf("the victim's recovery: %v, %v", open, err)
		}
	})
}

// TestStale sends every change that needs a factor without one given lately.
func TestStale(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		p.Roles = []string{"owner"}
		f := b.bindApp(p.Subject)
		other := b.session(p, "Safari")
		v := b.session(p, "Firefox")
		page := home + "/factors/" + f.ID
		for path, back := range map[string]string{
			page + "/remove":          page,
			page + "/enable":          page,
			page + "/disable":         page, // nothing else would be left
			home + "/codes":           home + "/codes",
			home + "/sessions":        home + "/sessions",
			home + "/sessions/others": home + "/sessions",
			home + "/help":            home + "/help",
			home + "/add":             home + "/add",
		} {
			a := b.post(path, v, "id", other.Session.ID, "name", "taro-name", "do", "totp")
			a.want(http.StatusSeeOther, "/.kidoban/step-up?to="+strings.ReplaceAll(back, "/", "%2F"))
		}
		if got := b.happened(); len(got) > 0 {
			t.Errorf("on record: %q", got)
		}
		// What was lost is suspended without it, while there is a way back.
		b.bindCodes(p.Subject)
		b.post(page+"/disable", v).want(http.StatusSeeOther, page+"?done=disabled")
		b.wantFactors(p.Subject, "totp disabled", "recovery active")
		b.get(page, v).says("Turned off by you")
		// A factor that is turned off is still one: evidence does not do instead.
		b.get(home+"/add", b.known(v)).want(http.StatusSeeOther, "/.kidoban/step-up?to=%2F.kidoban%2Faccount%2Fadd")
	})
}

func TestChanges(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		f, second := b.bindApp(p.Subject), b.bindApp(p.Subject)
		b.bindCodes(p.Subject)
		v := b.session(p, "Firefox")
		b.session(p, "Safari")
		v.Fresh = true
		page := home + "/factors/" + f.ID
		b.submit(b.get(page, v), "/rename", v, "name", " 私の電話 ").want(http.StatusSeeOther, page+"?done=renamed")
		b.get(page, v).says("私の電話")
		for _, bad := range []string{"", "  ", strings.Repeat("x", 65), "a\x00b", "\xff"} {
			b.get(b.post(page+"/rename", v, "name", bad).want(http.StatusSeeOther, page+"?failed=name").to, v).says("1 to 64 characters")
		}
		b.submit(b.get(page, v), "/disable", v).want(http.StatusSeeOther, page+"?done=disabled")
		b.submit(b.get(page, v), "/enable", v).want(http.StatusSeeOther, page+"?done=enabled")
		if got, want := b.happened(), []string{"act.factor.rename", "act.factor.disable", "act.factor.enable"}; !slices.Equal(got, want) {
			t.Errorf("on record: %q, want %q", got, want)
		}
		// What somebody else turned off stays so.
		if _, _, err := b.Factors.Disable(t.Context(), p.Subject, f.ID, auth.Act{By: "operator"}, b.now); err != nil {
			t.Fatal(err)
		}
		b.post(page+"/enable", v).want(http.StatusSeeOther, page)
		b.get(page, v).says("Turned off by an administrator")

		done := b.submit(b.get(page, v), "/remove", v).want(http.StatusSeeOther, home+"/factors?done=removed")
		b.submit(b.get(done.to, v).says("End all other sessions"), "/sessions/others", v).want(http.StatusSeeOther, home+"/sessions?done=ended-all")
		if open, err := b.Sessions.OfSubject(t.Context(), p.Subject, b.now); err != nil || len(open) != 1 || open[0].ID != v.Session.ID {
			t.Errorf("sessions: %v, %v", open, err)
		}
		b.wantFactors(p.Subject, "totp active", "recovery active")
		b.post(page+"/remove", v) // again, by a reload
		b.wantFactors(p.Subject, "totp active", "recovery active")

		// With the last one the recovery codes go.
		last := home + "/factors/" + second.ID
		b.submit(b.get(last, v).says("your recovery codes stop working"), "/remove", v)
		b.wantFactors(p.Subject)
		b.post(home+"/codes", v).want(http.StatusSeeOther, home+"/codes?failed=first")
	})
}

// TestRequired keeps the last factor where there must be one.
func TestRequired(t *testing.T) {
	for name, require := range map[string]policies.Requirement{
		"everybody":       {Need: policies.DemandFactor},
		"organization":    {Need: policies.DemandFactor, Organizations: []string{"acme"}},
		"role":            {Need: policies.DemandFactor, Roles: []string{"member"}},
		"some country":    {Need: policies.DemandFactor, Countries: []string{"DE"}},
		"grace goes on":   {Need: policies.DemandFactor, From: start.AddDate(1, 0, 0)},
		"another one":     {Need: policies.DemandFactor, Organizations: []string{"other"}},
		"only if there":   {Need: policies.DemandEnrolled},
		"only a confirm ": {Need: policies.DemandConfirm},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, auth.NewMemoryStore(), newOutbox())
			b.policy.Require = []policies.Requirement{require}
			p := b.learn("hanako")
			f, off := b.bindApp(p.Subject), b.bindApp(p.Subject)
			if _, _, err := b.Factors.Disable(t.Context(), p.Subject, off.ID, auth.Act{By: "owner"}, b.now); err != nil {
				t.Fatal(err)
			}
			v := b.session(p, "Firefox")
			v.Fresh = true
			page := home + "/factors/" + f.ID
			a := b.post(page+"/remove", v)
			if require.Need != policies.DemandFactor || name == "another one" {
				a.want(http.StatusSeeOther, home+"/factors?done=removed")
				return
			}
			b.get(a.want(http.StatusSeeOther, page+"?failed=required").to, v).says("your account must have a second step")
			b.wantFactors(p.Subject, "totp active", "totp disabled")
			b.post(home+"/factors/"+off.ID+"/remove", v).want(http.StatusSeeOther, home+"/factors?done=removed")
			b.bindApp(p.Subject)
			b.post(page+"/remove", v).want(http.StatusSeeOther, home+"/factors?done=removed")
		})
	}
}

func TestRecoveryCodes(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		b.bindApp(p.Subject)
		v := b.session(p, "Firefox")
		v.Fresh = true
		first := b.submit(b.get(home+"/codes", v).says("You have none"), "/codes", v)
		if strings.Count(first.body, "<li>") != 10 {
			t.Fatalf("%s", first.body)
		}
		b.submit(first, "/kept", v).want(http.StatusSeeOther, home+"/codes")
		page := b.get(home+"/codes", v).says("10 of 10", "25 November 2026, 12:04")
		if strings.Contains(page.body, "<li>") {
			t.Error("codes are shown again")
		}
		old := b.bindCodes(p.Subject)
		for _, code := range old[:7] {
			if _, err := b.Factors.UseRecoveryCode(t.Context(), p.Subject, code, auth.Act{By: "x"}, b.now); err != nil {
				t.Fatal(err)
			}
		}
		b.submit(b.get(home+"/codes", v).says("3 of 10", "Few are left"), "/codes", v)
		if _, err := b.Factors.UseRecoveryCode(t.Context(), p.Subject, old[9], auth.Act{By: "x"}, b.now); err == nil {
			t.Error("a code that was replaced")
		}
	})
}

func TestWhereabouts(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		p := b.learn("hanako")
		device := b.device(p.Subject)
		mine := b.session(p, "Firefox on Windows")
		b.now = b.now.Add(time.Minute)
		other := b.session(p, "Safari on iPhone")
		mine.Session.Device = device.ID

		b.get(home+"/sessions", mine).says("Firefox on Windows", "This session", "Safari on iPhone", "Japan", "Password only", "25 November 2026, 12:05", "JST, UTC+09:00")
		page := b.get(home+"/devices", mine).says("This one", "New")
		b.submit(page, "/devices", mine).want(http.StatusSeeOther, home+"/devices?done=forgotten")
		b.get(home+"/devices", mine).says("No device is known")
		if a := b.post(home+"/devices", mine, "id", device.ID); a.code != http.StatusNotFound {
			t.Errorf("forgotten twice: %d", a.code)
		}
		if a := b.post(home+"/sessions", mine, "id", mine.Session.ID); a.code != http.StatusNotFound {
			t.Errorf("this session: %d", a.code)
		}
		b.post(home+"/sessions", mine, "id", other.Session.ID).want(http.StatusSeeOther, home+"/sessions?done=ended")
		if a := b.post(home+"/sessions", mine, "id", other.Session.ID); a.code != http.StatusNotFound {
			t.Errorf("ended twice: %d", a.code)
		}

		// Somebody had the password.
		denied := b.hold(p)
		if _, err := b.Holds.Deny(t.Context(), denied.For, auth.Act{By: "owner"}, b.now); err != nil {
			t.Fatal(err)
		}
		b.hold(p)
		b.now = b.now.Add(time.Hour)
		if _, err := b.Holds.Sweep(t.Context(), b.now); err != nil {
			t.Fatal(err)
		}
		history := b.get(home+"/history", mine).says("Signed in", "Session ended by you", "was stopped", "not the second step", "somebody knows your password", "Japan")
		body := history.body
		if strings.Index(body, "not the second step") > strings.Index(body, "was stopped") {
			t.Error("the newest is not the first")
		}
	})
}

func TestHelp(t *testing.T) {
	eachBench(t, func(t *testing.T, b *bench) {
		admin := b.learn("admin")
		admin.Roles = []string{"member", "owner"}
		hanako := b.learn("hanako")
		if _, err := b.Directory.Learn(t.Context(), auth.Person{Subject: "stranger", Organization: "other", Mail: []string{"s@other.example"}}, [16]byte{}, b.now); err != nil {
			t.Fatal(err)
		}
		b.names["stranger-name"] = "stranger"

		member := b.session(hanako, "x")
		for _, a := range []answer{b.get(home+"/help", member), b.post(home+"/help", member, "name", "admin-name")} {
			if a.code != http.StatusNotFound {
				t.Errorf("a member: %d", a.code)
			}
		}
		v := b.session(admin, "Firefox")
		v.Fresh = true
		if b.get(home+"/help", v).says("You yourself have no second step").hasForm("/help") {
			t.Error("an administrator without a factor is offered codes")
		}
		b.post(home+"/help", v, "name", "hanako-name").want(http.StatusSeeOther, home+"/help")
		f := b.bindApp(admin.Subject)

		codes, shown := map[string]string{}, map[string]string{}
		for _, name := range []string{"hanako-name", "nobody-name", "stranger-name", "admin-name"} {
			a := b.submit(b.get(home+"/help", v), "/help", v, "name", name)
			if a.code != http.StatusOK {
				t.Fatalf("%s: %d", name, a.code)
			}
			for n := range a.doc.Descendants() {
				if n.Data == "dd" && attribute(n, "class") == "secret" {
					codes[name] = text(n)
				}
			}
			shown[name] = strings.ReplaceAll(strings.ReplaceAll(text(a.doc), codes[name], "CODE"), name, "NAME")
			if len(codes[name]) != 34 || shown[name] != shown["hanako-name"] {
				t.Errorf("%s is answered in another way: %q", name, shown[name])
			}
		}
		told := b.mails("enrolment.code")
		if len(told) != 2 || told[0].Values["by"] != "admin-name" || told[0].Values["account"] != "hanako-name" {
			t.Errorf("told: %+v", told)
		}
		for _, n := range told {
			for _, value := range n.Values {
				if strings.ReplaceAll(value, "-", " ") == codes["hanako-name"] {
					t.Error("the code is in the message")
				}
			}
		}
		b.get(b.post(home+"/help", v, "name", " ").want(http.StatusSeeOther, home+"/help?failed=name").to, v).says("1 to 64 characters")

		if _, _, err := b.Factors.Remove(t.Context(), admin.Subject, f.ID, auth.Act{By: "x"}, b.now); err != nil {
			t.Fatal(err)
		}
		// The codes of nobody are good for nobody, and the other one for its owner.
		for _, who := range []string{"hanako", "stranger", "admin"} {
			p, _, err := b.Directory.BySubject(t.Context(), who)
			if err != nil {
				t.Fatal(err)
			}
			hold := b.hold(p)
			for name, code := range codes {
				if name != "hanako-name" || who != "hanako" {
					if a := b.post(enrol+"/code", hold, "code", code); a.to == enrol {
						t.Errorf("the code for %s is good for %s", name, who)
					}
				}
			}
		}
		hold := b.hold(hanako)
		b.post(enrol+"/code", hold, "code", codes["hanako-name"]).want(http.StatusSeeOther, enrol)
		appOf(b.submit(b.get(enrol, hold), enrol, hold, "do", "totp"))
	})
}
