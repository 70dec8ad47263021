package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kidoban/kidoban/gateway/geo"
	"github.com/kidoban/kidoban/gateway/storage"
)

const (
	clockWarn = 2 * time.Second  // codes and events begin to suffer
	clockFail = 20 * time.Second // assertions and codes are refused

	roomWarn = 2 << 30 // bytes
	roomFail = 256 << 20
)

// checkData looks at the data directory, its keys and the database.
func (d *doctor) checkData(ctx context.Context, c *configured) {
	ctx, cancel := context.WithTimeout(ctx, 2*askTime)
	defer cancel()
	dir := c.app.DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.warn("data_dir", "Start the gate once; it makes it.", "%s is not there yet", dir)
	case err != nil:
		d.fail("data_dir", "Run this as the user that the gate runs as.", "%v", err)
	case !info.IsDir():
		d.fail("data_dir", "Name a directory.", "%s is none", dir)
	case info.Mode().Perm()&0o022 != 0:
		d.fail("data_dir", "chmod go-w it; the gate refuses it as it is.", "others can write to %s (mode %04o)", dir, info.Mode().Perm())
	default:
		d.ok("data_dir", "%s is this user's alone to write (mode %04o)", dir, info.Mode().Perm())
		d.checkRoom(dir)
		if _, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), false); err != nil {
			d.fail("keys", "See gateway/OPERATIONS.md, section Keys.", "%v", err)
		} else {
			d.ok("keys", "%s has a key for each purpose; is a copy kept apart? (kidoban keys export)", filepath.Join(dir, "keys.json"))
		}
	}
	d.checkDatabase(ctx, c, info != nil)
}

func (d *doctor) checkRoom(dir string) {
	room, err := storage.Capacity(dir)
	switch {
	case err != nil:
		d.fail("disk", "Look at the file system.", "%v", err)
	case room.Free < roomFail:
		d.fail("disk", "Make room: log-ins are refused when the record cannot be written.", "%d MiB are free under %s", room.Free>>20, dir)
	case room.Free < roomWarn:
		d.warn("disk", "Make room, or watch kidoban_record_bytes.", "%d MiB are free under %s", room.Free>>20, dir)
	default:
		d.ok("disk", "%d GiB are free under %s", room.Free>>30, dir)
	}
}

func (d *doctor) checkDatabase(ctx context.Context, c *configured, begun bool) {
	const check = "database"
	address, err := resolve("database", c.app.Database)
	if err != nil {
		d.fail(check, "Set it in the environment of the gate, and of this command.", "%v", err)
		return
	}
	if address == "" && !begun {
		return
	}
	db, err := storage.OpenReadOnly(ctx, storage.Options{DataDir: c.app.DataDir, Database: address, Node: "doctor", Log: slog.New(slog.DiscardHandler)})
	if errors.Is(err, fs.ErrNotExist) {
		d.warn(check, "Start the gate once; it makes it.", "%v", err)
		return
	}
	if err != nil {
		d.fail(check, "Start it, or mend its address; log-ins are refused without it.", "%v", err)
		return
	}
	defer db.Close()
	outdated, err := db.Outdated(ctx)
	switch {
	case err != nil:
		d.fail(check, "Start the gate once; it makes the tables.", "%v", err)
	case len(outdated) > 0:
		d.warn(check, "A start of this program brings older ones up; newer ones it refuses.", "of another version than this program (%s)", strings.Join(outdated, "; "))
	default:
		d.ok(check, "%s answers and is of this program's version", db.Dialect())
	}
	if address != "" {
		before := d.now()
		at, err := db.Clock(ctx)
		d.compareClock("the database's", before, at, err)
	}
}

// compareClock compares a server's clock with ours, which was before when it was asked.
func (d *doctor) compareClock(whose string, before, at time.Time, err error) {
	after := d.now()
	var off time.Duration // what cannot be the way there and back
	switch {
	case err != nil:
		d.warn("clock", "See why it does not answer.", "%s could not be asked: %v", whose, err)
		return
	case at.Before(before):
		off = before.Sub(at)
	case at.After(after):
		off = at.Sub(after)
	}
	const remedy = "Run a time service (NTP) on all machines."
	switch {
	case off >= clockFail:
		d.fail("clock", remedy, "this machine's and %s are %v apart", whose, off.Round(time.Millisecond))
	case off >= clockWarn:
		d.warn("clock", remedy, "this machine's and %s are %v apart", whose, off.Round(time.Millisecond))
	default:
		d.ok("clock", "this machine's and %s agree within %v", whose, clockWarn)
	}
}

func (d *doctor) checkRedis(ctx context.Context, c *configured) {
	const check = "redis"
	if c.app.Redis == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	url, err := resolve("redis", c.app.Redis.URL)
	if err != nil {
		d.fail(check, "Set it in the environment of the gate, and of this command.", "%v", err)
		return
	}
	r := c.app.Redis
	client, err := storage.OpenRedis(storage.RedisConfig{URL: url, CA: r.CA, Certificate: r.Certificate, Key: r.Key, Budget: askTime, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		d.fail(check, "Mend its address or certificates.", "%v", err)
		return
	}
	defer client.Close()
	before := d.now()
	at, err := client.Time(ctx).Result()
	if err != nil {
		d.fail(check, "Start it, or mend its address; until then each node counts alone.", "%v", err)
		return
	}
	d.ok(check, "it answers")
	d.compareClock("Redis's", before, at, nil)
}

// checkPlaces looks whether the geo files can be read, and how old they are.
func (d *doctor) checkPlaces(c *configured) {
	var places geo.Live
	_ = places.Use(c.app.GeoIP) // its status tells
	for _, f := range places.Status() {
		switch age := d.now().Sub(f.Built); {
		case f.Fault != nil:
			d.fail("geoip", "Replace it with a good file; the gate takes it without a restart. Until then it is left out.", "%v", f.Fault)
		case age > geo.Stale:
			d.warn("geoip", "Replace it with a new one, and have that done each week or month.", "%s is %d days old", f.Path, int(age.Hours()/24))
		default:
			d.ok("geoip", "%s tells of %s, and is of %s", f.Path, map[string]string{geo.ASN: "networks (ASN)", geo.Country: "countries"}[f.Kind], f.Built.UTC().Format(time.DateOnly))
		}
	}
}
