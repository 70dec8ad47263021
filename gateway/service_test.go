package gateway

import (
	"io"
	"mime/quotedprintable"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/policies"
)

// TestOrigins reads where people reach the service. Whatever is taken here, second
// factors take too: else a gate would be valid and not start.
func TestOrigins(t *testing.T) {
	for _, test := range []struct {
		name    string
		origins []string
		rpID    string
		want    []string // none: refused, with fault in the error
		wantID  string
		fault   string
	}{
		{name: "one", origins: []string{"https://chat.example.com"}, want: []string{"https://chat.example.com"}, wantID: "chat.example.com"},
		{name: "a slash at the end", origins: []string{"https://chat.example.com/"}, want: []string{"https://chat.example.com"}, wantID: "chat.example.com"},
		{name: "the port that https has anyway", origins: []string{"https://chat.example.com:443"}, want: []string{"https://chat.example.com"}, wantID: "chat.example.com"},
		{name: "another port", origins: []string{"https://chat.example.com:8443"}, want: []string{"https://chat.example.com:8443"}, wantID: "chat.example.com"},
		{name: "capitals", origins: []string{"HTTPS://Chat.Example.COM"}, want: []string{"https://chat.example.com"}, wantID: "chat.example.com"},
		{name: "a name in Japanese", origins: []string{"https://チャット.例え.jp"}, want: []string{"https://xn--7ckep0i.xn--r8jz45g.jp"}, wantID: "xn--7ckep0i.xn--r8jz45g.jp"},
		{name: "the same in ASCII", origins: []string{"https://xn--7ckep0i.xn--r8jz45g.jp"}, rpID: "例え.jp", want: []string{"https://xn--7ckep0i.xn--r8jz45g.jp"}, wantID: "xn--r8jz45g.jp"},
		{name: "this machine", origins: []string{"http://localhost:8080"}, want: []string{"http://localhost:8080"}, wantID: "localhost"},
		{name: "this machine, on its own port", origins: []string{"http://localhost:80"}, want: []string{"http://localhost"}, wantID: "localhost"},
		{name: "two below one domain", origins: []string{"https://chat.example.com", "https://www.example.com"}, rpID: "example.com",
			want: []string{"https://chat.example.com", "https://www.example.com"}, wantID: "example.com"},
		{name: "a domain and one below", origins: []string{"https://example.com", "https://chat.example.com"}, want: []string{"https://example.com", "https://chat.example.com"}, wantID: "example.com"},
		{name: "rp_id in capitals", origins: []string{"https://chat.example.com"}, rpID: "Example.COM", want: []string{"https://chat.example.com"}, wantID: "example.com"},
		{name: "a domain below a suffix of two labels", origins: []string{"https://chat.example.co.jp"}, rpID: "example.co.jp", want: []string{"https://chat.example.co.jp"}, wantID: "example.co.jp"},
		{name: "none at all", want: []string{}},

		{name: "no scheme", origins: []string{"chat.example.com"}, fault: "want scheme, host"},
		{name: "a path", origins: []string{"https://chat.example.com/app"}, fault: "want scheme, host"},
		{name: "a query", origins: []string{"https://chat.example.com?a"}, fault: "want scheme, host"},
		{name: "a question mark", origins: []string{"https://chat.example.com?"}, fault: "want scheme, host"},
		{name: "a fragment", origins: []string{"https://chat.example.com#"}, fault: "want scheme, host"},
		{name: "a user", origins: []string{"https://me@chat.example.com"}, fault: "want scheme, host"},
		{name: "mail", origins: []string{"mailto:me@example.com"}, fault: "want scheme, host"},
		{name: "nothing", origins: []string{""}, fault: "want scheme, host"},
		{name: "an IPv4 address", origins: []string{"https://192.0.2.1"}, fault: "for names only"},
		{name: "an IPv6 address", origins: []string{"https://[2001:db8::1]:8443"}, fault: "for names only"},
		{name: "in the clear", origins: []string{"http://chat.example.com"}, fault: "want https"},
		{name: "another scheme", origins: []string{"ftp://chat.example.com"}, fault: "want https"},
		{name: "a port that is too high", origins: []string{"https://chat.example.com:65536"}, fault: "the port is none"},
		{name: "port 0", origins: []string{"https://chat.example.com:0"}, fault: "the port is none"},
		{name: "a colon and no port", origins: []string{"https://chat.example.com:"}, fault: "the port is none"},
		{name: "a dot at the end", origins: []string{"https://chat.example.com."}, fault: "the host is no name"},
		{name: "a dot at the beginning", origins: []string{"https://.example.com"}, fault: "the host is no name"},
		{name: "a name that is too long", origins: []string{"https://" + strings.Repeat("a.", 122) + "example.com"}, fault: "the host is no name"},
		{name: "a label that is too long", origins: []string{"https://" + strings.Repeat("a", 64) + ".example.com"}, fault: "the host is no name"},
		{name: "an empty label", origins: []string{"https://chat..example.com"}, fault: "the host is no name"},
		{name: "a hyphen at an end", origins: []string{"https://chat-.example.com"}, fault: "the host is no name"},
		{name: "an underscore", origins: []string{"https://chat_1.example.com"}, fault: "the host is no name"},
		{name: "twice", origins: []string{"https://chat.example.com", "https://chat.example.com"}, fault: "twice"},
		{name: "twice, written in two ways", origins: []string{"https://chat.example.com", "https://CHAT.example.com:443/"}, fault: "twice"},
		{name: "twice, in Japanese and in ASCII", origins: []string{"https://例え.jp", "https://xn--r8jz45g.jp"}, fault: "twice"},
		{name: "too many", origins: slices.Repeat([]string{"https://chat.example.com"}, maxOrigins+1), fault: "17 given, want at most 16"},

		{name: "rp_id alone", rpID: "example.com", fault: "say by `origin`"},
		{name: "rp_id with a scheme", origins: []string{"https://chat.example.com"}, rpID: "https://example.com", fault: "want a domain alone"},
		{name: "rp_id with a port", origins: []string{"https://chat.example.com"}, rpID: "chat.example.com:443", fault: "want a domain alone"},
		{name: "rp_id is an address", origins: []string{"https://chat.example.com"}, rpID: "192.0.2.1", fault: "want a domain alone"},
		{name: "rp_id of somebody else", origins: []string{"https://chat.example.com"}, rpID: "example.org", fault: "another domain"},
		{name: "rp_id below", origins: []string{"https://example.com"}, rpID: "chat.example.com", fault: "another domain"},
		{name: "rp_id that only ends the same", origins: []string{"https://badexample.com"}, rpID: "example.com", fault: "another domain"},
		{name: "one origin of another domain", origins: []string{"https://chat.example.com", "https://chat.example.org"}, fault: "another domain"},
		{name: "rp_id is a suffix that strangers share", origins: []string{"https://chat.example.co.jp"}, rpID: "co.jp", fault: "strangers have domains below it"},
		{name: "such a suffix of a company", origins: []string{"https://chat.github.io"}, rpID: "github.io", fault: "strangers have domains below it"},
		{name: "rp_id is com", origins: []string{"https://chat.example.com"}, rpID: "com", fault: "strangers have domains below it"},
		{name: "a single label above another", origins: []string{"https://chat.house"}, rpID: "house", fault: "strangers have domains below it"},
		{name: "a single label that is on no list, above another", origins: []string{"https://chat.lan"}, rpID: "lan", fault: "a name with a dot"},
		{name: "a host of the house", origins: []string{"https://gate-1"}, fault: "a name with a dot"},
		{name: "the origin is a suffix itself", origins: []string{"https://co.jp"}, fault: "strangers have domains below it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &App{Origins: test.origins, RPID: test.rpID}
			err := a.provisionOrigins()
			if test.want == nil {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Fatalf("error = %v, want one with %q", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.service.origins, test.want) || a.service.rpID != test.wantID {
				t.Errorf("origins %q of %q, want %q of %q", a.service.origins, a.service.rpID, test.want, test.wantID)
			}
			if len(test.want) == 0 {
				return
			}
			if err := a.provisionSite(); err != nil {
				t.Fatal(err)
			}
			same := func(b, _ []byte) ([]byte, error) { return b, nil }
			if _, err := auth.OpenFactors(t.Context(), auth.NewMemoryStore(), auth.FactorSeal{Seal: same, Open: same}, auth.FactorsConfig{
				Issuer: a.service.Name, RPID: a.service.rpID, Origins: a.service.origins,
			}, time.Unix(1_800_000_000, 0)); err != nil {
				t.Errorf("second factors: %v", err)
			}
		})
	}
}

// TestServiceName: pages, apps and letters call the service by one name.
func TestServiceName(t *testing.T) {
	letters := func(service string) *Mail {
		return &Mail{Server: "smtp+plain://127.0.0.1", From: "Example Security <security@example.com>", Service: service, Link: "https://chat.example.com"}
	}
	origins := []string{"https://chat.example.com:8443", "https://www.chat.example.com"}
	for _, test := range []struct {
		name     string
		app      *App
		want     string // on pages and in apps
		wantMail string // in letters
		fault    string
	}{
		{name: "nothing is said", app: &App{}},
		{name: "the host of the first origin", app: &App{Origins: origins}, want: "chat.example.com"},
		{name: "mail's sender", app: &App{Origins: origins, Mail: letters("")}, want: "Example Security", wantMail: "Example Security"},
		{name: "mail's service", app: &App{Origins: origins, Mail: letters("Example Letters")}, want: "Example Letters", wantMail: "Example Letters"},
		{name: "the service", app: &App{Origins: origins, Service: "例示チャット"}, want: "例示チャット"},
		{name: "the service, in letters too", app: &App{Origins: origins, Service: "Example Chat", Mail: letters("")}, want: "Example Chat", wantMail: "Example Chat"},
		{name: "each its own", app: &App{Origins: origins, Service: "Example Chat", Mail: letters("Example Letters")}, want: "Example Chat", wantMail: "Example Letters"},
		{name: "a colon in letters, without second factors", app: &App{Mail: letters("Chat: Example")}, want: "Chat: Example", wantMail: "Chat: Example"},
		{name: "as long as may be", app: &App{Service: strings.Repeat("木", maxServiceName)}, want: strings.Repeat("木", maxServiceName)},

		{name: "too long", app: &App{Service: strings.Repeat("木", maxServiceName+1)}, fault: "1 to 64 characters"},
		{name: "a colon", app: &App{Service: "Chat: Example"}, fault: "without a colon"},
		{name: "a colon of mail's, in apps", app: &App{Origins: origins, Mail: letters("Chat: Example")}, fault: "without a colon"},
		{name: "a blank at the end", app: &App{Service: "Chat "}, fault: "want the name of the service"},
		{name: "a line break", app: &App{Service: "Example\nChat"}, fault: "want the name of the service"},
		{name: "text that turns round", app: &App{Service: "Chat\u202e"}, fault: "want the name of the service"},
		{name: "no UTF-8", app: &App{Service: "Chat\xff"}, fault: "want the name of the service"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := test.app
			err := a.provisionOrigins()
			if err == nil && a.Mail != nil {
				err = a.provisionMail(func(_ string, s Secret) (string, error) { return string(s), nil })
			}
			if err == nil {
				err = a.provisionSite()
			}
			switch {
			case test.fault != "":
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("error = %v, want one with %q", err, test.fault)
				}
			case err != nil:
				t.Error(err)
			case a.service.Name != test.want:
				t.Errorf("the service is called %q, want %q", a.service.Name, test.want)
			case a.mailer != nil && a.mailer.Service() != test.wantMail:
				t.Errorf("letters call it %q, want %q", a.mailer.Service(), test.wantMail)
			}
		})
	}
}

// letters is an SMTP server that hands on what it is handed.
type letters chan string

func (l letters) NewSession(*smtp.Conn) (smtp.Session, error) { return l, nil }
func (letters) Mail(string, *smtp.MailOptions) error          { return nil }
func (letters) Rcpt(string, *smtp.RcptOptions) error          { return nil }
func (letters) Reset()                                        {}
func (letters) Logout() error                                 { return nil }
func (l letters) Data(r io.Reader) error {
	text, err := io.ReadAll(quotedprintable.NewReader(r))
	l <- string(text)
	return err
}

// TestLettersLeadToTheService: letters lead to the first origin, unless mail has an
// address of its own.
func TestLettersLeadToTheService(t *testing.T) {
	in := make(letters, 1)
	server := smtp.NewServer(in)
	server.Domain, server.ReadTimeout = "localhost", time.Minute
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { listener.Close(); server.Close(); <-done })
	for _, test := range []struct {
		name, link string
		origins    []string
		want       string // empty: it is a fault that there is none
	}{
		{"origins", "", []string{"https://chat.example.com", "https://www.example.com"}, "https://chat.example.com"},
		{"an address of its own", "https://example.com/chat", []string{"https://chat.example.com"}, "https://example.com/chat"},
		{"an address and no origins", "https://example.com/chat", nil, "https://example.com/chat"},
		{"neither", "", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &App{
				Origins: test.origins, RPID: "", Service: "Example Chat",
				Mail: &Mail{Server: Secret("smtp+plain://" + listener.Addr().String()), From: "Example Security <security@example.com>", Link: test.link},
			}
			if len(test.origins) > 1 {
				a.RPID = "example.com"
			}
			if err := a.provisionOrigins(); err != nil {
				t.Fatal(err)
			}
			err := a.provisionMail(func(_ string, s Secret) (string, error) { return string(s), nil })
			if test.want == "" {
				if err == nil || !strings.Contains(err.Error(), "link") {
					t.Errorf("error = %v, want one about the link", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			at := time.Unix(1_800_000_000, 0)
			answer := a.mailer.Send(t.Context(), policies.Notice{
				Key: "factor.removed/1", MessageID: "1", Template: "factor.removed", To: "alice@example.com", Created: at,
				Values: map[string]string{"account": "alice", "factor": "totp", "at": at.UTC().Format(time.RFC3339)},
			}, at)
			if answer.Err != nil {
				t.Fatal(answer.Err)
			}
			letter := <-in
			if !strings.Contains(letter, "\r\n"+test.want+"\r\n") && !strings.Contains(letter, " "+test.want+"\r\n") {
				t.Errorf("the letter does not lead to %s:\n%s", test.want, letter)
			}
		})
	}
}
