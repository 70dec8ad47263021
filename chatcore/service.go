// Package chatcore is a plain chat service for many organizations: accounts
// and their credentials, rooms, messages, and a feed of events.
//
// A [Service] is opened on one SQLite file and may be used concurrently until
// it is closed. Every answer obeys membership: an account learns nothing of a
// room it is not in, nor of another organization's people. A credential that
// ends (logout, a changed or reset password, a deleted token) ends what was
// begun with it, live feeds included.
//
// To run it inside another program:
//
//	svc, err := chatcore.Open(ctx, chatcore.Config{Path: file})
//	defer svc.Close()
//	err = web.Serve(ctx, listener, svc, web.Options{})
//
// Deliberately absent is every protection of the login: no limit of attempts,
// no lock-out, no second factor, no memory of failures. An unknown account
// costs the same work as a known one and gets the same answer; that is all.
// Whatever stands in front of the service can thus be measured.
package chatcore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
	"github.com/kidoban/kidoban/chatcore/password"
	"github.com/kidoban/kidoban/chatcore/store"
)

// Config is what a Service needs. Only Path is required.
type Config struct {
	Path string // of the SQLite file; made when missing

	PasswordCost password.Cost // zero: password.Recommended
	// Hashes is how many passwords are hashed at once, each taking
	// PasswordCost.Memory; the others wait. Zero: one for each processor.
	Hashes int

	SessionLifetime time.Duration // zero: 14 days, counted from the login

	// PublicURL is where browsers find the service, for links in mails. It is
	// never taken from a request: whoever sends one chooses its Host header.
	PublicURL string // empty: http://127.0.0.1:9000

	MailDir string // when set, each mail is also written here as an .eml file

	Log *slog.Logger     // nil: nothing is logged
	Now func() time.Time // nil: time.Now
}

// The lifetimes of credentials.
const (
	sessionLifetime = 14 * 24 * time.Hour
	resetLifetime   = time.Hour
)

// Service is the chat service.
type Service struct {
	db      *store.DB
	hasher  *password.Hasher
	live    *hub
	mailers []mailer
	resets  chan string // addresses whose reset was asked for
	stop    func()
	done    sync.WaitGroup
	log     *slog.Logger
	now     func() time.Time

	publicURL       string
	sessionLifetime time.Duration
}

// Open opens the service. It must be closed.
func Open(ctx context.Context, c Config) (*Service, error) {
	if c.PasswordCost == (password.Cost{}) {
		c.PasswordCost = password.Recommended
	}
	if c.Hashes == 0 {
		c.Hashes = runtime.GOMAXPROCS(0)
	}
	if c.SessionLifetime == 0 {
		c.SessionLifetime = sessionLifetime
	}
	if c.PublicURL == "" {
		c.PublicURL = "http://127.0.0.1:9000"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	hasher, err := password.NewHasher(c.PasswordCost, c.Hashes)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, c.Path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", c.Path, err)
	}
	s := &Service{
		db: db, hasher: hasher, live: newHub(), mailers: []mailer{db}, resets: make(chan string, resetsWaiting),
		log: c.Log, now: c.Now, publicURL: strings.TrimRight(c.PublicURL, "/"), sessionLifetime: c.SessionLifetime,
	}
	if c.MailDir != "" {
		s.mailers = append(s.mailers, mailDir(c.MailDir))
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.done.Go(func() { s.mailResets(work) })
	return s, nil
}

// EndLive ends every feed now and refuses new ones, so that a server can shut
// down without waiting for them.
func (s *Service) EndLive() { s.live.close() }

// Close ends every feed, then closes the file.
func (s *Service) Close() error {
	s.live.close()
	s.stop()
	s.done.Wait()
	return s.db.Close()
}

// Healthy reports whether the service can answer.
func (s *Service) Healthy(ctx context.Context) error { return s.db.Ping(ctx) }

// PublicURL is where browsers find the service, without a slash at its end.
func (s *Service) PublicURL() string { return s.publicURL }

// newSecret makes a secret of 256 bits and the hash it is stored under.
func newSecret() (string, chat.SecretHash) {
	b := make([]byte, 32)
	rand.Read(b)
	secret := base64.RawURLEncoding.EncodeToString(b)
	return secret, hashSecret(secret)
}

func hashSecret(secret string) chat.SecretHash { return sha256.Sum256([]byte(secret)) }

// isKind reports whether err has a kind.
func isKind(err error, k chat.Kind) bool { return err != nil && chat.KindOf(err) == k }

// stopped reports whether err only says that the caller went away.
func stopped(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
