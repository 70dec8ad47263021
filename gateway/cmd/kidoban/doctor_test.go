package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/assertion"
	"github.com/kidoban/kidoban/chatcore/web"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// The scripts find real chats in the environment: $LOOPBACK listens there alone, $OPEN
// on all addresses, $VOUCHED too but asking for assertions; $ACCOUNT is a file with
// the account of a person of each, $OUTSIDE an address of this machine.
func TestDoctorScripts(t *testing.T) {
	own := ownAddresses()
	if len(own) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this machine has loopback addresses only")
		}
		t.Skip("this machine has loopback addresses only")
	}
	v := someVerifier(t)
	loopback, _ := chatOn(t, "127.0.0.1:0", nil)
	open, person := chatOn(t, ":0", nil)
	vouched, same := chatOn(t, ":0", v)
	if person.Email != same.Email || person.Password != same.Password {
		t.Fatal("equal seeds made different people")
	}
	redis := storagetest.Redis(t)
	public := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(public.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script/doctor",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("LOOPBACK", loopback)
			e.Setenv("OPEN", open)
			e.Setenv("VOUCHED", vouched)
			e.Setenv("OUTSIDE", net.JoinHostPort(own[0].String(), open))
			e.Setenv("REDIS_URL", "redis://"+redis.Addr())
			e.Setenv("DATABASE_URL", storagetest.Postgres(t))
			e.Setenv("PUBLIC", public.URL)
			e.Setenv("ACCOUNT", filepath.Join(e.WorkDir, "account"))
			if err := os.WriteFile(filepath.Join(e.WorkDir, "account"), []byte(person.Email+"\n"+person.Password+"\n"), 0o600); err != nil {
				return err
			}
			return seedData(t, filepath.Join(e.WorkDir, "data"))
		},
	})
}

// chatOn serves a chat with made-up people, and returns its port and one of them.
func chatOn(t *testing.T, address string, v *assertion.Verifier) (port string, _ chatcore.SeededAccount) {
	t.Helper()
	svc, err := chatcore.Open(t.Context(), chatcore.Config{Path: filepath.Join(t.TempDir(), "chat.db"), PasswordCost: cheapHash})
	if err != nil {
		t.Fatal(err)
	}
	people, err := svc.Seed(t.Context(), chatcore.SeedOptions{Organizations: 1, Accounts: 3, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	h, err := web.Handler(svc, web.Options{Assertions: v})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(func() {
		s.Close()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, people[0]
}

// someVerifier verifies by a key that signs nothing.
func someVerifier(t *testing.T) *assertion.Verifier {
	t.Helper()
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := assertion.New(assertion.Config{Keys: file, Issuer: "https://chat.example.com", Audience: "chat"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDoctorsClock(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		off  time.Duration
		want string
	}{{0, fine}, {1900 * time.Millisecond, fine}, {-2 * time.Second, warned}, {19 * time.Second, warned}, {20 * time.Second, failed}, {-time.Hour, failed}} {
		d := doctor{now: func() time.Time { return at }}
		d.compareClock("the database's", at, at.Add(test.off), nil)
		if got := d.found[0]; got.Status != test.want {
			t.Errorf("%v: %+v, want %s", test.off, got, test.want)
		}
	}
}

// TestDoctorsCertificate looks at a certificate of httptest, which is for example.com
// and 127.0.0.1, at several times.
func TestDoctorsCertificate(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	for _, test := range []struct {
		name, host string
		now        time.Time
		status     string
		say        string
	}{
		{"of an authority of its own", "example.com", chain[0].NotBefore.Add(time.Hour), warned, "does not know the authority"},
		{"over", "example.com", chain[0].NotAfter.Add(time.Hour), failed, "it ended on"},
		{"for another name", "chat.example.net", chain[0].NotBefore.Add(time.Hour), failed, "chat.example.net"},
	} {
		d := doctor{now: func() time.Time { return test.now }}
		d.checkCertificate(chain, test.host)
		if got := d.found[0]; got.Status != test.status || !strings.Contains(got.Detail, test.say) {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
