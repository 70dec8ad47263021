package mail

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"golang.org/x/text/language"

	"github.com/kidoban/kidoban/policies"
)

// The templates: of each message NAME.LANGUAGE.txt, and layout.html around them all.
//
// A message is text with a little markup, by lines: the first is the title; blocks
// are parted by an empty line; "| LABEL | VALUE" is a line of a table, "# CODE" a
// code to be typed, "> URL" an address to go to. facts.LANGUAGE.txt defines parts
// that several messages have. No value of a notice stands at the beginning of a line.
//
//go:embed templates
var files embed.FS

// Languages are what messages are written in. The first is for readers of all others.
var Languages = []string{"en", "ja"}

var matcher = language.NewMatcher([]language.Tag{language.English, language.Japanese})

var (
	layout = htmltemplate.Must(htmltemplate.ParseFS(files, "templates/layout.html"))
	texts  = parseTexts()
)

// parseTexts reads the templates of each language.
func parseTexts() map[string]*template.Template {
	all := make(map[string]*template.Template, len(Languages))
	for _, language := range Languages {
		all[language] = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "templates/*."+language+".txt"))
	}
	return all
}

// required are the messages that there are, with the values that each cannot do without.
var required = map[string][]string{
	"decision.registered":  {"scope", "value", "action"},
	"decision.extended":    {"scope", "value", "action"},
	"decision.lifted":      {"scope", "value", "action"},
	"decision.expired":     {"scope", "value", "action"},
	"rule.fell":            {"rule", "action", "reason"}, // it spent its budget of false positives
	"incident.proposed":    {"incident", "category", "scope", "value", "rule", "reason"},
	"factor.added":         {"account", "factor"},
	"factor.removed":       {"account", "factor"},
	"factor.disabled":      {"account", "factor"}, // after too many wrong answers
	"factor.guessed":       {"account", "factor"}, // wrong for the fifth time in a row
	"factor.suspended":     {"account", "factor"},
	"factor.enabled":       {"account", "factor"},
	"key.cloned":           {"account", "factor"},
	"recovery.used":        {"account"},
	"recovery.replaced":    {"account"},
	"recovery.begun":       {"account", "until", "url"}, // where it can be stopped
	"recovery.ready":       {"account", "code"},
	"recovery.cancelled":   {"account"},
	"device.new":           {"account"},
	"password.stolen-pair": {"account"},
	"signin.unanswered":    {"account"},
	"signin.denied":        {"account"},
	"sessions.ended":       {"account"},
	"activity.noticed":     {"account"},
	"rule.matched":         {"rule", "scope", "value", "reason"},
	"confirmation.code":    {"account", "code"},
	"enrolment.link":       {"account", "url"},
	"enrolment.code":       {"account"}, // that there is one; it is handed over by whoever issued it
	digest:                 {"about", "count"},
}

// digest is the message that stands for those that were too many.
const digest = "notices.more"

// Templates are the names of all messages.
func Templates() []string { return slices.Sorted(maps.Keys(required)) }

// words are how one reader is written to.
type words struct {
	language string
	tag      language.Tag
	zone     *time.Location
}

func reader(n policies.Notice) *words {
	w := &words{language: Languages[0], tag: language.English, zone: zone(n.Values[valueTimeZone])}
	if wish := n.Values[valueLanguage]; wish != "" && len(wish) <= 64 {
		if _, i := language.MatchStrings(matcher, wish); i == 1 {
			w.language, w.tag = "ja", language.Japanese
		}
	}
	return w
}

// letter is what one message says.
type letter struct {
	Language string
	Service  string
	Title    string
	Blocks   []block
	Footer   []string
}

// block is a part of a letter; one of its fields is set.
type block struct {
	Text  string
	Facts []fact
	Code  string
	URL   string
}

type fact struct{ Label, Value string }

// write says what n is about.
func (m *Mailer) write(n policies.Notice) (letter, error) {
	must, ok := required[n.Template]
	if !ok {
		return letter{}, fmt.Errorf("there is no message %.64q", n.Template)
	}
	for _, name := range must {
		if n.Values[name] == "" {
			return letter{}, fmt.Errorf("the notice lacks the value %q", name)
		}
	}
	w := reader(n)
	v, err := m.read(n, w)
	if err != nil {
		return letter{}, err
	}
	var text bytes.Buffer
	if err := texts[w.language].ExecuteTemplate(&text, n.Template+"."+w.language+".txt", v); err != nil {
		return letter{}, fmt.Errorf("the template of %s: %w", n.Template, err)
	}
	l, err := parseLetter(text.String())
	if err != nil {
		return letter{}, fmt.Errorf("the template of %s: %w", n.Template, err)
	}
	l.Language, l.Service = w.language, m.service
	foot := footers[w.language]
	if n.State == policies.Uncertain {
		l.Footer = append(l.Footer, foot.repeated)
	}
	l.Footer = append(l.Footer, fmt.Sprintf(foot.sent, m.service))
	return l, nil
}

var footers = map[string]struct{ repeated, sent string }{
	"en": {"You may have received this message already: an earlier attempt to deliver it was cut off.", "This message was sent automatically by %s. Replies to it are not read."},
	"ja": {"前回の配信が途中で切れたため、同じメールがすでに届いている場合があります。", "このメールは %s が自動的に送信しています。返信いただいてもお読みできません。"},
}

// parseLetter reads the markup.
func parseLetter(text string) (letter, error) {
	title, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	l := letter{Title: strings.TrimSpace(title)}
	for part := range strings.SplitSeq(rest, "\n\n") {
		part = strings.TrimSpace(part)
		switch {
		case part == "":
		case strings.HasPrefix(part, "| "):
			var b block
			for line := range strings.SplitSeq(part, "\n") {
				label, value, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
				if !ok {
					return l, errors.New("a line of a table has no value")
				}
				b.Facts = append(b.Facts, fact{label, value})
			}
			l.Blocks = append(l.Blocks, b)
		case strings.HasPrefix(part, "# "):
			l.Blocks = append(l.Blocks, block{Code: part[2:]})
		case strings.HasPrefix(part, "> "):
			l.Blocks = append(l.Blocks, block{URL: part[2:]})
		default:
			l.Blocks = append(l.Blocks, block{Text: part})
		}
	}
	if l.Title == "" || len(l.Blocks) == 0 {
		return l, errors.New("it has no title or says nothing")
	}
	return l, nil
}

// plain is the letter as text.
func (l letter) plain() string {
	var b strings.Builder
	b.WriteString(l.Title + "\n")
	for _, part := range l.Blocks {
		b.WriteString("\n")
		switch {
		case len(part.Facts) > 0:
			for _, f := range part.Facts {
				b.WriteString(f.Label + ": " + f.Value + "\n")
			}
		case part.Code != "":
			b.WriteString("    " + part.Code + "\n")
		case part.URL != "":
			b.WriteString(part.URL + "\n")
		default:
			b.WriteString(part.Text + "\n")
		}
	}
	b.WriteString("\n-- \n") // RFC 3676 section 4.3
	for _, line := range l.Footer {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// html is the letter as a page.
func (l letter) html() (string, error) {
	var b strings.Builder
	if err := layout.Execute(&b, l); err != nil {
		return "", fmt.Errorf("the layout: %w", err)
	}
	return b.String(), nil
}
