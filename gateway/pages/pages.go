// Package pages is what end users see of the gate: a few calm sentences in
// Japanese or English, a reference code, and what to do next. Pages need no
// script and load nothing from elsewhere; their Content-Security-Policy says so.
package pages

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"
)

// Kind is what a page or a problem document is about.
type Kind string

const (
	Refused      Kind = "refused"
	StepUp       Kind = "step-up"
	Limited      Kind = "limited"
	Unavailable  Kind = "unavailable"
	SessionEnded Kind = "session-ended"
	TooEarly     Kind = "too-early"
	BadRequest   Kind = "bad-request"
)

// Words are what one kind says in one language.
type Words struct {
	Title  string
	Detail string
	Next   string // what the person can do
}

var words = map[Kind]map[string]Words{
	Refused: {
		"en": {"This request was not let through", "To protect accounts of this service, this request was stopped before it reached the service.", "If you are a user of this service, please tell your administrator the reference code below."},
		"ja": {"このリクエストはお通しできませんでした", "サービスのアカウントを守るため、このリクエストはサービスに届く前に止められました。", "ご利用者の方は、下の参照番号を管理者にお伝えください。"},
	},
	StepUp: {
		"en": {"We need to be sure that it is you", "To protect your account, signing in from here needs more proof at the moment, because this device is not known to us yet.", "Please sign in from a device that you have used before, or tell your administrator the reference code below."},
		"ja": {"ご本人の確認が必要です", "この端末はまだ確認されていません。アカウントを守るため、現在ここからのログインには追加の確認が必要です。", "以前に使ったことのある端末からログインするか、下の参照番号を管理者にお伝えください。"},
	},
	Limited: {
		"en": {"Too many attempts", "There were too many attempts in a short time.", "Please wait a little and try again."},
		"ja": {"試行回数が多すぎます", "短い時間に多くの試行がありました。", "しばらく待ってから、もう一度お試しください。"},
	},
	Unavailable: {
		"en": {"Signing in is not possible at the moment", "A part of the service that keeps sessions safe cannot be reached.", "Please try again in a moment. Who is signed in already can go on working."},
		"ja": {"現在ログインできません", "セッションを安全に保つための機能に接続できません。", "しばらくしてからもう一度お試しください。すでにログイン中の方はそのままご利用いただけます。"},
	},
	SessionEnded: {
		"en": {"You have been signed out", "This session has ended.", "Please sign in again."},
		"ja": {"ログアウトしました", "このセッションは終了しました。", "もう一度ログインしてください。"},
	},
	TooEarly: {
		"en": {"Please repeat the request", "The request came before the connection was fully secured.", "Your browser repeats it by itself."},
		"ja": {"もう一度送信してください", "安全な接続が確立する前にリクエストが届きました。", "ブラウザーが自動的に再送します。"},
	},
	BadRequest: {
		"en": {"This request could not be read", "The form was too large, or written in a way that can be read in more than one sense.", "Please go back and try again."},
		"ja": {"リクエストを読み取れませんでした", "送信内容が大きすぎるか、複数の意味に読める形式でした。", "前のページに戻って、もう一度お試しください。"},
	},
}

// Text returns what kind says in lang ("ja" or "en").
func Text(kind Kind, lang string) Words { return words[kind][lang] }

var matcher = language.NewMatcher([]language.Tag{language.English, language.Japanese})

// Language chooses between "en" and "ja" by Accept-Language (RFC 9110 section 12.5.4).
func Language(r *http.Request) string {
	header := r.Header.Get("Accept-Language")
	if header == "" || len(header) > 256 {
		return "en"
	}
	if _, i := language.MatchStrings(matcher, header); i == 1 {
		return "ja"
	}
	return "en"
}

// Page is one page for a person.
type Page struct {
	Kind       Kind
	Language   string
	Reference  string
	RetryAfter time.Duration
}

//go:embed page.html style.css
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

var labels = map[string]map[string]string{
	"en": {"reference": "Reference code", "back": "Back", "guard": "Protected by Kidoban"},
	"ja": {"reference": "参照番号", "back": "戻る", "guard": "Kidoban が保護しています"},
}

// Write sends a page. Its status, like its words, tells nothing about which rule spoke.
func Write(w http.ResponseWriter, r *http.Request, status int, p Page) error {
	var body bytes.Buffer
	if err := page.Execute(&body, struct {
		Page
		Words
		Labels map[string]string
	}{p, Text(p.Kind, p.Language), labels[p.Language]}); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Language)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept-Language")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body.Bytes())
	return err
}

// Serve answers what lives under the gate's own path: the style sheet, and for
// each problem type a page that explains it.
func Serve(w http.ResponseWriter, r *http.Request, name string) error {
	if kind, ok := strings.CutPrefix(name, "problems/"); ok {
		if _, known := words[Kind(kind)]; known {
			return Write(w, r, http.StatusOK, Page{Kind: Kind(kind), Language: Language(r)})
		}
	}
	if name == "style.css" {
		style, err := files.ReadFile("style.css")
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, err = w.Write(style)
		return err
	}
	http.NotFound(w, r)
	return nil
}
