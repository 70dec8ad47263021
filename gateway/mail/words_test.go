package mail_test

import (
	"bytes"
	"flag"
	"fmt"
	"html"
	"io"
	"mime"
	"mime/multipart"
	stdmail "net/mail"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template/parse"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/policies"
)

var update = flag.Bool("update", false, "rewrite golden files")

var monday = time.Date(2026, 11, 23, 0, 5, 6, 7000, time.UTC)

// mailer writes for Example Chat; change may set more.
func mailer(t testing.TB, change func(*mail.Config)) *mail.Mailer {
	t.Helper()
	c := mail.Config{Server: "smtp://mail.example.com", From: "Example Chat security <security@example.com>", Service: "Example Chat", Link: "https://chat.example.com"}
	if change != nil {
		change(&c)
	}
	m, err := mail.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// everything has each value that a notice can have.
func everything() map[string]string {
	return map[string]string{
		"account": "ann@example.com", "at": "2026-11-23T00:04:59Z", "until": "2026-11-23T00:35:00Z", "country": "JP", "client": "Firefox 146 on Windows",
		"factor": "passkey", "name": "Ann's phone", "count": "7", "code": "4821-7730", "url": "https://chat.example.com/.kidoban/enrol?t=3qZr5u0yVYkS9b2x",
		"by": "ops", "decision": "0195c4f2", "scope": "network", "value": "203.0.113.0/24", "action": "step_up", "origin": "operator", "rule": "stuffing.many-accounts-one-network",
		"reason": "ticket 4711: a list is being tried", "incident": "2026-117", "category": "credential-stuffing", "mode": "enforce", "lifted": "2026-11-23T00:20:00Z", "lifted_by": "night", "about": "confirmation.code",
	}
}

func notice(template, language string) policies.Notice {
	values := everything()
	values["language"], values["time_zone"] = language, "Asia/Tokyo"
	if language == "en" {
		values["time_zone"] = "Europe/Berlin"
	}
	return policies.Notice{
		Key: "k", Channel: mail.Channel, Template: template, To: "ann@example.com", Values: values,
		State: policies.Leased, Created: monday, MessageID: "<abcdefghijklmnopqrstuvwxyz@kidoban>", Attempts: 1,
	}
}

// letter is a message as its reader's program has it.
type letter struct {
	header     stdmail.Header
	text, html string
}

// parsed reads a message and fails where it is not as RFC 5322, 2045 and 2047 want it.
func parsed(t testing.TB, raw []byte) letter {
	t.Helper()
	for i, line := range bytes.Split(raw, []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("line %d is too long, or has a stray CR, LF or NUL: %.200q", i+1, line)
		}
		for _, c := range line {
			if c >= 0x80 && !bytes.HasPrefix(line, []byte("To: ")) { // of an address beyond ASCII, RFC 6532
				t.Fatalf("line %d is not ASCII: %.200q", i+1, line)
			}
		}
	}
	m, err := stdmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v in\n%.2000s", err, raw)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("type %q, %v", m.Header.Get("Content-Type"), err)
	}
	l := letter{header: m.Header}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, part := range []struct {
		kind string
		into *string
	}{{"text/plain; charset=UTF-8", &l.text}, {"text/html; charset=UTF-8", &l.html}} {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Header.Get("Content-Type"); got != part.kind {
			t.Errorf("type of a part: %q, want %q", got, part.kind)
		}
		text, err := io.ReadAll(decode(p))
		if err != nil {
			t.Fatal(err)
		}
		*part.into = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
	if _, err := parts.NextRawPart(); err != io.EOF {
		t.Errorf("a third part, %v", err)
	}
	return l
}

func (l letter) word(t testing.TB, name string) string {
	t.Helper()
	if n := len(l.header[name]); n != 1 {
		t.Fatalf("%d fields %s, want 1", n, name)
	}
	text, err := new(mime.WordDecoder).DecodeHeader(l.header.Get(name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestGolden compares every message in both languages with testdata/NAME.LANGUAGE.txtar.
func TestGolden(t *testing.T) {
	m := mailer(t, nil)
	for _, name := range mail.Templates() {
		for _, language := range mail.Languages {
			t.Run(name+"."+language, func(t *testing.T) {
				raw, err := m.Compose("ann@example.com", notice(name, language))
				if err != nil {
					t.Fatal(err)
				}
				l := parsed(t, raw)
				var head strings.Builder
				for _, field := range []string{"From", "To", "Subject", "Date", "Message-Id", "Auto-Submitted", "X-Auto-Response-Suppress", "X-Kidoban-Notice", "Content-Language", "Mime-Version"} {
					fmt.Fprintf(&head, "%s: %s\n", field, l.word(t, field))
				}
				if got := len(l.header); got != 11 { // and Content-Type
					t.Errorf("%d header fields: %v", got, l.header)
				}
				got := txtar.Format(&txtar.Archive{Files: []txtar.File{{Name: "header", Data: []byte(head.String())}, {Name: "text", Data: []byte(l.text)}, {Name: "html", Data: []byte(l.html)}}})
				file := filepath.Join("testdata", name+"."+language+".txtar")
				if *update {
					if err := os.WriteFile(file, got, 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), string(got)); diff != "" {
					t.Errorf("-want +got, or run with -update:\n%s", diff)
				}
				if again, err := m.Compose("ann@example.com", notice(name, language)); err != nil || !bytes.Equal(raw, again) {
					t.Errorf("composed again it differs, %v", err)
				}
			})
		}
	}
}

// TestTemplates shows that each message is there in each language, says the same
// things in each, and nothing but what it can know.
func TestTemplates(t *testing.T) {
	var files []string
	for _, name := range append(mail.Templates(), "facts") {
		for _, language := range mail.Languages {
			files = append(files, name+"."+language+".txt")
		}
	}
	files = append(files, "layout.html")
	found, err := filepath.Glob("templates/*")
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	slices.Sort(files)
	if diff := cmp.Diff(files, found); diff != "" {
		t.Errorf("files: -want +got:\n%s", diff)
	}
	fields := make(map[string]bool)
	for f := range reflect.TypeFor[mail.Values]().Fields() {
		fields[f.Name] = true
	}
	used := make(map[string]bool)
	for _, name := range mail.Templates() {
		var says [][]string
		for _, language := range mail.Languages {
			all := mail.Texts(language)
			said := make(map[string]bool)
			var walk func(parse.Node)
			walk = func(n parse.Node) {
				switch n := n.(type) {
				case *parse.ListNode:
					if n != nil {
						for _, child := range n.Nodes {
							walk(child)
						}
					}
				case *parse.ActionNode:
					walk(n.Pipe)
				case *parse.WithNode:
					walk(n.Pipe)
					walk(n.List)
					walk(n.ElseList)
				case *parse.PipeNode:
					for _, c := range n.Cmds {
						for _, a := range c.Args {
							walk(a)
						}
					}
				case *parse.TemplateNode:
					walk(all.Lookup(n.Name).Root)
				case *parse.FieldNode:
					if len(n.Ident) != 1 || !fields[n.Ident[0]] {
						t.Errorf("%s.%s says %v, which there is not", name, language, n.Ident)
					}
					said[n.Ident[0]] = true
					used[n.Ident[0]] = true
				case *parse.TextNode, *parse.DotNode:
				default:
					t.Errorf("%s.%s has %T: templates say values, with them or without", name, language, n)
				}
			}
			file := all.Lookup(name + "." + language + ".txt")
			if file == nil {
				t.Errorf("%s is missing in %s", name, language)
				continue
			}
			walk(file.Root)
			var list []string
			for field := range said {
				list = append(list, field)
			}
			slices.Sort(list)
			says = append(says, list)
			for line := range strings.SplitSeq(file.Root.String(), "\n") {
				if strings.HasPrefix(line, "{{.") && !strings.HasPrefix(line, "{{.Service}}") { // that one is configured
					t.Errorf("%s.%s: a value stands at the beginning of a line: %s", name, language, line)
				}
			}
		}
		if diff := cmp.Diff(says[0], says[1]); diff != "" {
			t.Errorf("%s: what en and ja say differs:\n%s", name, diff)
		}
	}
	for field := range fields {
		if !used[field] {
			t.Errorf("no message says %s", field)
		}
	}
	for _, name := range mail.Known() {
		if everything()[name] == "" {
			t.Errorf("these tests have no %s", name)
		}
	}
}

// TestSecrets shows which messages carry a secret. All others do without, whatever
// their notices have.
func TestSecrets(t *testing.T) {
	m := mailer(t, nil)
	codes := []string{"confirmation.code", "recovery.ready"}
	links := []string{"enrolment.link", "recovery.begun"}
	const code = "3V8K-0Z4M-QW7T-H2RC-9XJ5-B6ND-YEGP" // as recovery codes are
	for _, name := range mail.Templates() {
		for _, language := range mail.Languages {
			n := notice(name, language)
			n.Values["code"] = code
			raw, err := m.Compose("ann@example.com", n)
			if err != nil {
				t.Fatal(err)
			}
			l := parsed(t, raw)
			for part, text := range map[string]string{"subject": l.word(t, "Subject"), "text": l.text, "html": l.html} {
				if got, want := strings.Contains(text, code), part != "subject" && slices.Contains(codes, name); got != want {
					t.Errorf("%s.%s: its %s has the code: %v, want %v", name, language, part, got, want)
				}
				if got, want := strings.Contains(text, everything()["url"]), part != "subject" && slices.Contains(links, name); got != want {
					t.Errorf("%s.%s: its %s has the link: %v, want %v", name, language, part, got, want)
				}
			}
		}
	}
}

// TestDigestsCountEverything shows that there are words for each message in a digest.
func TestDigestsCountEverything(t *testing.T) {
	m := mailer(t, nil)
	for _, name := range mail.Templates() {
		for _, language := range mail.Languages {
			n := notice("notices.more", language)
			n.Values["about"] = name
			raw, err := m.Compose("ann@example.com", n)
			if err != nil {
				t.Fatal(err)
			}
			if l := parsed(t, raw); name != "notices.more" && strings.Contains(l.text, name) {
				t.Errorf("%s has no words for many %s", language, name)
			}
		}
	}
}

func TestWhatANoticeMustHave(t *testing.T) {
	m := mailer(t, nil)
	for _, test := range []struct {
		name   string
		change func(*policies.Notice)
		want   string // the error; empty: none
	}{
		{"all", func(n *policies.Notice) {}, ""},
		{"a template that is none", func(n *policies.Notice) { n.Template = "facts" }, `there is no message "facts"`},
		{"no code", func(n *policies.Notice) { delete(n.Values, "code") }, `the notice lacks the value "code"`},
		{"a code with markup", func(n *policies.Notice) { n.Values["code"] = "<b>1234" }, `the notice's value "code" cannot be told`},
		{"a time that is none", func(n *policies.Notice) { n.Values["until"] = "soon" }, `the notice's value "until" cannot be told`},
		{"a country that is none", func(n *policies.Notice) { n.Values["country"] = "Japan" }, `the notice's value "country" cannot be told`},
		{"a region that is no country", func(n *policies.Notice) { n.Values["country"] = "419" }, `the notice's value "country" cannot be told`},
		{"a number that is none", func(n *policies.Notice) { n.Values["count"] = "-1" }, `the notice's value "count" cannot be told`},
		{"a link elsewhere", func(n *policies.Notice) { n.Values["url"] = "https://chat.example.com.evil.example/.kidoban/" }, `the notice's value "url" cannot be told`},
		{"a link to the service's own pages", func(n *policies.Notice) { n.Values["url"] = "https://chat.example.com/profile" }, `the notice's value "url" cannot be told`},
		{"a link with a blank", func(n *policies.Notice) { n.Values["url"] = "https://chat.example.com/.kidoban/ x" }, `the notice's value "url" cannot be told`},
		{"a value that is not known", func(n *policies.Notice) { n.Values["mood"] = "good" }, ""},
		{"a language that is not written", func(n *policies.Notice) { n.Values["language"] = "fr-CH" }, ""},
		{"a time zone that is none", func(n *policies.Notice) { n.Values["time_zone"] = "../../etc/passwd" }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := notice("confirmation.code", "en")
			test.change(&n)
			_, err := m.Compose("ann@example.com", n)
			if got := fmt.Sprint(err); got != test.want && (err != nil || test.want != "") {
				t.Errorf("error %s, want %q", got, test.want)
			}
		})
	}
}

func TestARepetitionSaysSo(t *testing.T) {
	m := mailer(t, nil)
	for _, language := range mail.Languages {
		n := notice("device.new", language)
		first, err := m.Compose("ann@example.com", n)
		if err != nil {
			t.Fatal(err)
		}
		n.State, n.Attempts = policies.Uncertain, 2
		second, err := m.Compose("ann@example.com", n)
		if err != nil {
			t.Fatal(err)
		}
		a, b := parsed(t, first), parsed(t, second)
		if diff := cmp.Diff(a.header, b.header); diff != "" {
			t.Errorf("headers differ:\n%s", diff)
		}
		mark := map[string]string{"en": "You may have received this message already", "ja": "すでに届いている場合があります"}[language]
		if strings.Contains(a.text, mark) || !strings.Contains(b.text, mark) || !strings.Contains(b.html, mark) {
			t.Errorf("%s: the mark is missing, or in the first one", language)
		}
	}
}

// TestLanguageZoneAndNames shows headers that are not ASCII, and times where the reader is.
func TestLanguageZoneAndNames(t *testing.T) {
	const from, service = "例示チャット、セキュリティ担当 \"夜勤\"", "例示チャット・とても長い名前のサービス(社内向け・全社共通・テスト環境を含む)"
	m := mailer(t, func(c *mail.Config) {
		c.From, c.Service = "=?UTF-8?B?5L6L56S644OB44Oj44OD44OI44CB44K744Kt44Ol44Oq44OG44Kj5ouF5b2TICLlpJzli6Qi?= <security@xn--r8jz45g.jp>", service
	})
	n := notice("password.stolen-pair", "ja-JP")
	n.Values["time_zone"] = "Asia/Kathmandu"
	raw, err := m.Compose("ann@例え.jp", n)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if len(line) > 78 {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
	l := parsed(t, raw)
	sender, err := l.header.AddressList("From")
	if err != nil || len(sender) != 1 || sender[0].Name != from || sender[0].Address != "security@xn--r8jz45g.jp" {
		t.Errorf("From: %v, %v", sender, err)
	}
	if got, want := l.word(t, "Subject"), "["+service+"] パスワードが第三者に知られています。変更してください"; got != want {
		t.Errorf("Subject: %s, want %s", got, want)
	}
	if got := l.header.Get("To"); got != "<ann@xn--r8jz45g.jp>" {
		t.Errorf("To: %s", got)
	}
	if got := l.header.Get("Message-Id"); got != "<abcdefghijklmnopqrstuvwxyz@xn--r8jz45g.jp>" {
		t.Errorf("Message-Id: %s", got)
	}
	if want := "日時: 2026年11月23日（月）05:49（UTC+05:45）"; !strings.Contains(l.text, want) {
		t.Errorf("no %q in\n%s", want, l.text)
	}
	if want := "場所: 日本"; !strings.Contains(l.text, want) {
		t.Errorf("no %q in\n%s", want, l.text)
	}
}

// TestHostileValues puts what an attacker may choose into every value.
func TestHostileValues(t *testing.T) {
	m := mailer(t, nil)
	hostile := "x\r\nBcc: everybody@example.com\r\n\r\n\u202e<script>alert(1)</script>\u2066 https://evil.example/login \u2028| a | b\n\n# 1234" + strings.Repeat("あ", 9000)
	for _, name := range mail.Templates() {
		for _, language := range mail.Languages {
			n := notice(name, language)
			for _, value := range []string{"account", "client", "name", "by", "decision", "scope", "value", "action", "origin", "rule", "reason", "incident", "category", "mode", "lifted_by", "factor", "about"} {
				n.Values[value] = hostile
			}
			raw, err := m.Compose("ann@example.com", n)
			if err != nil {
				t.Errorf("%s.%s: %v", name, language, err)
				continue
			}
			l := parsed(t, raw)
			if len(l.header) != 11 || len(raw) > 40<<10 {
				t.Errorf("%s.%s: %d bytes and %d header fields: %v", name, language, len(raw), len(l.header), l.header)
			}
			if strings.ContainsAny(l.text+l.html+l.word(t, "Subject"), "\u202e\u2066\u2028\r") || strings.Contains(l.html, "<script") {
				t.Errorf("%s.%s: what is hidden, or a script, came through", name, language)
			}
			if found := regexp.MustCompile(`(?m)^(Bcc|# |\| ).*$`).FindString(l.text); found != "" {
				t.Errorf("%s.%s: a line of its own: %s", name, language, found)
			}
			for _, link := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(l.html, -1) {
				if got := html.UnescapeString(link[1]); got != "https://chat.example.com" && got != everything()["url"] {
					t.Errorf("%s.%s: a link to %s", name, language, got)
				}
			}
			if !strings.HasPrefix(name, "decision.") && !strings.HasPrefix(name, "rule.") && !strings.HasPrefix(name, "incident.") && name != "notices.more" && strings.Contains(l.text, "https://evil.example/login") {
				t.Errorf("%s.%s: mail programs make a link of what a stranger wrote:\n%s", name, language, l.text)
			}
		}
	}
}

// TestLinksOfOtherOrigins: where people reach the service under several names, letters
// lead to whichever somebody asked from, and nowhere else.
func TestLinksOfOtherOrigins(t *testing.T) {
	m := mailer(t, func(c *mail.Config) { c.Pages = []string{"https://chat.example.com", "https://talk.example.com"} })
	for url, good := range map[string]bool{
		"https://chat.example.com/.kidoban/factor/link?t=x":  true,
		"https://talk.example.com/.kidoban/factor/link?t=x":  true,
		"https://other.example.com/.kidoban/factor/link?t=x": false,
		"https://talk.example.com/elsewhere":                 false,
	} {
		n := notice("enrolment.link", "en")
		n.Values["url"] = url
		if _, err := m.Compose("ann@example.com", n); (err == nil) != good {
			t.Errorf("%s: %v, want it told: %v", url, err, good)
		}
	}
}
