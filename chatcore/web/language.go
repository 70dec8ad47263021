package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/text/language"

	"github.com/kidoban/kidoban/chatcore/chat"
)

//go:embed locale/*.json
var localeFiles embed.FS

// locales joins a language to its texts by key.
var locales = map[string]map[string]string{"ja": readLocale("ja"), "en": readLocale("en")}

func readLocale(lang string) map[string]string {
	var texts map[string]string
	b, err := localeFiles.ReadFile("locale/" + lang + ".json")
	if err == nil {
		err = json.Unmarshal(b, &texts)
	}
	if err != nil {
		panic(err) // the file is part of the program, and tested
	}
	return texts
}

// T is a text in the page's language. A key without a text shows itself.
func (p *page) T(key string, args ...any) string {
	text, ok := locales[p.Lang][key]
	if !ok {
		return key
	}
	if len(args) > 0 {
		return fmt.Sprintf(text, args...)
	}
	return text
}

func (p *page) has(key string) bool { return locales[p.Lang][key] != "" }

// langCookie remembers the language somebody chose before logging in.
const langCookie = "lang"

var matcher = language.NewMatcher([]language.Tag{language.Japanese, language.English})

// language is the one a page is written in: the one asked for now by ?lang=,
// or the account's, or the one asked for earlier, or the browser's.
func (h *handler) language(w http.ResponseWriter, r *http.Request, a *chat.Account) string {
	if lang := r.URL.Query().Get("lang"); locales[lang] != nil {
		http.SetCookie(w, &http.Cookie{Name: langCookie, Value: lang, Path: "/", HttpOnly: true, Secure: h.secure,
			SameSite: http.SameSiteLaxMode, MaxAge: int(365 * 24 * time.Hour / time.Second)})
		return lang
	}
	if a != nil {
		return a.Language
	}
	if c, err := r.Cookie(langCookie); err == nil && locales[c.Value] != nil {
		return c.Value
	}
	tag, _ := language.MatchStrings(matcher, r.Header.Get("Accept-Language"))
	if base, _ := tag.Base(); base.String() == "en" {
		return "en"
	}
	return "ja"
}
