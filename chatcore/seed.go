package chatcore

import (
	"context"
	"encoding/csv"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/kidoban/kidoban/chatcore/chat"
	"github.com/kidoban/kidoban/chatcore/store"
	"github.com/kidoban/kidoban/chatcore/world"
)

// SeedOptions say which made-up world a Service is to hold.
type SeedOptions struct {
	Organizations int
	Accounts      int
	Seed          uint64 // equal seeds make equal worlds
}

// SeededAccount is an account of a made-up world, with what only its owner
// would know.
type SeededAccount struct {
	Organization  string
	OfficeNetwork netip.Prefix // where its owner's requests come from
	ID            chat.AccountID
	Name          string
	Email         string
	Password      string
	Language      string
}

// Seed fills an empty service with made-up organizations, all or nothing, and
// returns their accounts. Passwords are hashed at the service's cost, on all
// processors.
func (s *Service) Seed(ctx context.Context, o SeedOptions) ([]SeededAccount, error) {
	now := s.now()
	orgs, err := world.New(world.Options{Organizations: o.Organizations, Accounts: o.Accounts, Seed: o.Seed, Now: now})
	if err != nil {
		return nil, chat.Errorf(chat.Invalid, "%v", err)
	}
	var l store.Load
	var slots []*store.LoadAccount
	var accounts []SeededAccount
	for _, w := range orgs {
		org := store.LoadOrganization{Name: w.Name, Accounts: make([]store.LoadAccount, len(w.People))}
		for i, p := range w.People {
			org.Accounts[i].Account = chat.Account{Email: p.Email, Name: p.Name, Handle: p.Handle, Department: p.Department,
				Title: p.Title, Language: p.Language, TimeZone: p.TimeZone}
			slots = append(slots, &org.Accounts[i])
			accounts = append(accounts, SeededAccount{Organization: w.Name, OfficeNetwork: w.Office, Name: p.Name, Email: p.Email,
				Password: p.Password, Language: p.Language})
		}
		for _, r := range w.Rooms {
			room := store.LoadRoom{Name: r.Name, Description: r.Description, Icon: r.Icon, Members: r.Members}
			for _, m := range r.Messages {
				room.Messages = append(room.Messages, store.LoadMessage{Author: m.Author, Body: m.Body, SentAt: m.At})
			}
			org.Rooms = append(org.Rooms, room)
		}
		l.Organizations = append(l.Organizations, org)
	}
	if err := s.hashAll(ctx, accounts, slots); err != nil {
		return nil, err
	}
	if err := s.db.Load(ctx, l, now); err != nil {
		return nil, err
	}
	for i, a := range slots {
		accounts[i].ID = a.Account.ID
	}
	return accounts, nil
}

// hashAll sets the hash of each slot to that of the account beside it. The
// hasher bounds how many run at once.
func (s *Service) hashAll(ctx context.Context, accounts []SeededAccount, slots []*store.LoadAccount) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range s.hasher.Concurrent() {
		workers.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(slots); i = next.Add(1) - 1 {
				hash, err := s.hasher.Hash(ctx, chat.PasswordKey(accounts[i].Password))
				if err != nil {
					cancel(err)
					return
				}
				slots[i].Password = hash
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// WriteAccounts writes accounts as CSV, with a line of column names. The file
// holds every password: keep it as a secret.
func WriteAccounts(w io.Writer, accounts []SeededAccount) error {
	c := csv.NewWriter(w)
	c.Write([]string{"organization", "office_network", "account_id", "name", "email", "password", "language"})
	for _, a := range accounts {
		c.Write([]string{a.Organization, a.OfficeNetwork.String(), strconv.FormatInt(int64(a.ID), 10), a.Name, a.Email, a.Password, a.Language})
	}
	c.Flush()
	return c.Error()
}
