package pages_test

import (
	"html"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/kidoban/kidoban/gateway/pages"
)

func kinds() []pages.Kind {
	return []pages.Kind{pages.Refused, pages.StepUp, pages.Limited, pages.Unavailable, pages.SessionEnded, pages.TooEarly, pages.BadRequest, pages.FactorNeeded, pages.Accepted}
}

func TestLanguage(t *testing.T) {
	for accept, want := range map[string]string{
		"":                         "en",
		"ja":                       "ja",
		"ja-JP,ja;q=0.9,en;q=0.8":  "ja",
		"fr, ja;q=0.8, en;q=0.5":   "ja",
		"de":                       "en",
		"en-GB,ja;q=0.5":           "en",
		strings.Repeat("ja,", 200): "en",
		"\x00\xff;;;q=,,,":         "en",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", accept)
		if got := pages.Language(r); got != want {
			t.Errorf("Language(%.40q) = %s, want %s", accept, got, want)
		}
	}
}

var (
	verb = regexp.MustCompile(`%(\[\d\])?[a-z]`)
	said = regexp.MustCompile(`say "([^"]+)"`)
)

// TestPhrases wants each phrase in both languages, with the same values in it, and
// each to be said somewhere.
func TestPhrases(t *testing.T) {
	used := map[string]bool{"service": true}
	for _, v := range samples() {
		used[pages.TitleOf(v)] = true
	}
	for _, key := range accountKeys() {
		used[key] = true
	}
	for _, name := range append(pages.Templates(), "layout", "parts") {
		for _, m := range said.FindAllStringSubmatch(pages.File("html/"+name+".html"), -1) {
			used[m[1]] = true
		}
	}
	all := pages.Phrases()
	for key := range used {
		if all[key] == [2]string{} {
			t.Errorf("a page says %q, which is no phrase", key)
		}
	}
	for key, p := range all {
		en, ja := p[0], p[1]
		if en == "" || ja == "" || en == ja || strings.ContainsFunc(en, func(r rune) bool { return r > unicode.MaxLatin1 && !strings.ContainsRune("“”", r) }) {
			t.Errorf("%s: %q and %q", key, en, ja)
		}
		if !strings.ContainsFunc(ja, func(r rune) bool { return unicode.In(r, unicode.Hiragana, unicode.Katakana, unicode.Han) }) {
			t.Errorf("%s: %q is not Japanese", key, ja)
		}
		if a, b := verb.FindAllString(en, -1), verb.FindAllString(ja, -1); strings.Join(a, "") != strings.Join(b, "") {
			t.Errorf("%s: %v in English, %v in Japanese", key, a, b)
		}
		if !used[key] && !strings.HasPrefix(key, "problem.") && !strings.HasPrefix(key, "span.") {
			t.Errorf("%s is said nowhere", key)
		}
	}
}

func TestEveryKindSpeaksBothLanguages(t *testing.T) {
	for _, kind := range kinds() {
		for _, lang := range []string{"en", "ja"} {
			w := pages.Text(kind, lang)
			if w.Title == "" || w.Detail == "" || w.Next == "" {
				t.Errorf("%s in %s: %+v, want a title, a detail and what to do", kind, lang, w)
			}
		}
	}
}

// TestPagesSayWhatMattersMost looks for the sentences that protect people.
func TestPagesSayWhatMattersMost(t *testing.T) {
	for view, want := range map[string][2]string{
		"factor":        {"This lowers the protection of your account", "アカウントの保護は弱くなります"},
		"confirm":       {"never pass it on", "誰にも教えないでください"},
		"code":          {"If somebody sent you this link or a code, it was not you", "誰かから受け取った場合は、ご自身の操作ではありません"},
		"elsewhere":     {"only over the connection it came from", "同じ接続からのみ承認できます"},
		"denied":        {"change it now", "すぐにパスワードを変更"},
		"codes":         {"shown only now", "表示されるのは今回だけ"},
		"enrol-totp":    {"Show the picture and the key to nobody", "画像とキーは誰にも見せないでください"},
		"recover-begun": {"Wednesday 25 November 2026, 12:04 (JST, UTC+09:00)", "2026年11月25日（水）12:04（JST, UTC+09:00）"},
		"lost":          {"After 3 days we mail you a code", "3日後に、コードをメールでお送りします"},
	} {
		for i, lang := range []string{"en", "ja"} {
			if body := html.UnescapeString(written(t, chat, lang, samples()[view]).Body.String()); !strings.Contains(body, want[i]) {
				t.Errorf("%s in %s does not say %q", view, lang, want[i])
			}
		}
	}
}

func TestSpan(t *testing.T) {
	for _, test := range []struct {
		d      time.Duration
		en, ja string
	}{
		{time.Millisecond, "1 second", "1秒"},
		{time.Second, "1 second", "1秒"},
		{59*time.Second + 1, "60 seconds", "60秒"},
		{time.Minute, "60 seconds", "60秒"},
		{61 * time.Second, "2 minutes", "2分"},
		{2 * time.Hour, "120 minutes", "120分"},
		{2*time.Hour + 1, "3 hours", "3時間"},
		{24 * time.Hour, "24 hours", "24時間"},
		{72 * time.Hour, "3 days", "3日"},
		{72*time.Hour + 1, "4 days", "4日"},
	} {
		if en, ja := pages.Span("en", test.d), pages.Span("ja", test.d); en != test.en || ja != test.ja {
			t.Errorf("%v: %q and %q, want %q and %q", test.d, en, ja, test.en, test.ja)
		}
	}
}

func TestMoment(t *testing.T) {
	at := time.Date(2026, 3, 1, 23, 5, 0, 0, time.UTC)
	for zone, want := range map[*time.Location][2]string{
		time.UTC:                        {"Sunday 1 March 2026, 23:05 (UTC)", "2026年3月1日（日）23:05（UTC）"},
		tokyo:                           {"Monday 2 March 2026, 08:05 (JST, UTC+09:00)", "2026年3月2日（月）08:05（JST, UTC+09:00）"},
		time.FixedZone("-03", -3*60*60): {"Sunday 1 March 2026, 20:05 (UTC-03:00)", "2026年3月1日（日）20:05（UTC-03:00）"},
	} {
		if en, ja := pages.Moment("en", at.In(zone)), pages.Moment("ja", at.In(zone)); en != want[0] || ja != want[1] {
			t.Errorf("%v: %q and %q, want %q", zone, en, ja, want)
		}
	}
}
