package pages

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/text/language"
)

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

// phrase is one thing said in both languages. Verbs are those of package fmt, with
// explicit indexes where the languages order them differently.
type phrase struct{ en, ja string }

func (p phrase) in(lang string) string {
	if lang == "ja" {
		return p.ja
	}
	return p.en
}

// phrases are all, by key: the template's name, a point, what it is.
var phrases = collect(sharedWords, problemWords(), heldWords, enrolWords, recoverWords, accountWords)

func collect(parts ...map[string]phrase) map[string]phrase {
	all := make(map[string]phrase)
	for _, part := range parts {
		for key, p := range part {
			if _, twice := all[key]; twice {
				panic("the phrase " + key + " is there twice")
			}
			all[key] = p
		}
	}
	return all
}

// say is the phrase of that key. A key that does not exist is a fault of a template,
// which tests find; a person sees nothing of it.
func say(lang, key string, values ...any) string {
	text := phrases[key].in(lang)
	if len(values) == 0 {
		return text
	}
	return fmt.Sprintf(text, values...)
}

// span is a time to wait, rounded up so that who waits that long has waited enough.
func span(lang string, d time.Duration) string {
	n, key := int64((d+time.Second-1)/time.Second), "span.second"
	switch {
	case d > 48*time.Hour:
		n, key = int64((d+24*time.Hour-1)/(24*time.Hour)), "span.day"
	case d > 2*time.Hour:
		n, key = int64((d+time.Hour-1)/time.Hour), "span.hour"
	case d > time.Minute:
		n, key = int64((d+time.Minute-1)/time.Minute), "span.minute"
	}
	if n != 1 {
		key += "s"
	}
	return say(lang, key, n)
}

// day is that of t, in the zone t came in.
func day(lang string, t time.Time) string {
	if lang == "ja" {
		return t.Format("2006年1月2日") + "（" + string([]rune("日月火水木金土")[t.Weekday()]) + "）"
	}
	return t.Format("Monday 2 January 2006")
}

// moment is t with its zone, for people who travel.
func moment(lang string, t time.Time) string {
	if lang == "ja" {
		return day(lang, t) + t.Format("15:04") + "（" + zoneName(t) + "）"
	}
	return day(lang, t) + t.Format(", 15:04") + " (" + zoneName(t) + ")"
}

// zoneName is as in "JST, UTC+09:00".
func zoneName(t time.Time) string {
	short, seconds := t.Zone()
	if seconds == 0 && short == "UTC" {
		return "UTC"
	}
	offset := t.Format("UTC-07:00")
	if strings.ContainsAny(short, "+-") || short == "" { // the zone has no name of its own
		return offset
	}
	return short + ", " + offset
}
