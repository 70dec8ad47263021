package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/storage"
)

// The past of an established installation.
const (
	pastDays    = 3
	pastCookies = 0.9 // share of the office whose browsers kept the device cookie
)

// livePast gives the installation in dir the days that make it an established
// one: everybody logged in once, pastDays ago, and most of the office has a
// browser that remembers. It does to the stores what the gate does at each
// completed login, at that time, and returns the office's cookies by account.
func livePast(ctx context.Context, dir string, office, rest []chatcore.SeededAccount, seed uint64, now time.Time) (_ map[string]*http.Cookie, err error) {
	db, err := storage.Open(ctx, storage.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// Nobody needs these days back after a power cut.
	if _, err := db.SQL().ExecContext(ctx, "PRAGMA synchronous = OFF"); err != nil {
		return nil, err
	}
	keys, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), db.Fresh())
	if err != nil {
		return nil, err
	}
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return nil, err
	}
	then := now.Add(-pastDays * 24 * time.Hour)
	devices, err := auth.OpenDevices(ctx, store, keys.Cookies, auth.DevicesConfig{}, then)
	if err != nil {
		return nil, err
	}
	directory := auth.NewDirectory(store)
	learn := func(a chatcore.SeededAccount) error {
		_, err := directory.Learn(ctx, auth.Person{
			Subject: subjectOf(a), Names: []string{a.Email}, Mail: []string{a.Email}, Language: a.Language,
		}, keys.Digest("name", auth.CanonicalName(a.Email)), then)
		if err != nil {
			return fmt.Errorf("the past of account %d: %w", a.ID, err)
		}
		return nil
	}
	for _, a := range rest {
		if err := learn(a); err != nil {
			return nil, err
		}
	}
	r := rand.New(rand.NewPCG(seed, 0x70617374)) // "past"
	cookies := make(map[string]*http.Cookie)
	kept := int(float64(len(office))*pastCookies + 0.5)
	for i, who := range r.Perm(len(office)) {
		a := office[who]
		if err := learn(a); err != nil {
			return nil, err
		}
		value, _, err := devices.Complete(ctx, "", subjectOf(a), then)
		if err != nil {
			return nil, fmt.Errorf("the past of account %d: %w", a.ID, err)
		}
		if i < kept {
			cookies[a.Email] = &http.Cookie{Name: guard.DeviceCookie, Value: value, Path: "/", Secure: true}
		}
	}
	return cookies, nil
}

// subjectOf is how the gate knows an account, as the preset reads /account_id.
func subjectOf(a chatcore.SeededAccount) string { return strconv.FormatInt(int64(a.ID), 10) }
