package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// DevicesConfig bounds devices. Zero fields take the default.
type DevicesConfig struct {
	Probation   time.Duration // from an account's first completed login on a device until trust; 24 h
	ParallelFor time.Duration // the previous cookie is good after a rotation, for parallel tabs; 60 s
	KeepFor     time.Duration // after the last completed login; 400 days, the most a browser keeps a cookie
	KeepUnused  time.Duration // if the cookie never came back; 7 days
	MaxSubjects int           // accounts that a device is remembered for; 8
}

func (c DevicesConfig) withDefaults() (DevicesConfig, error) {
	for _, d := range []struct {
		name string
		v    *time.Duration
		std  time.Duration
	}{
		{"Probation", &c.Probation, 24 * time.Hour},
		{"ParallelFor", &c.ParallelFor, time.Minute},
		{"KeepFor", &c.KeepFor, 400 * 24 * time.Hour},
		{"KeepUnused", &c.KeepUnused, 7 * 24 * time.Hour},
	} {
		if *d.v < 0 {
			return c, fmt.Errorf("devices: %s is %v: want a positive duration, or 0 for %v", d.name, *d.v, d.std)
		}
		if *d.v == 0 {
			*d.v = d.std
		}
	}
	if c.MaxSubjects < 0 {
		return c, fmt.Errorf("devices: MaxSubjects is %d: want a positive number, or 0 for 8", c.MaxSubjects)
	}
	if c.MaxSubjects == 0 {
		c.MaxSubjects = 8
	}
	return c, nil
}

// DeviceView is a device as one account may see it.
type DeviceView struct {
	ID string // public; "" when there is no device
	// State is "" without a cookie of ours, "stranger" if the account never
	// completed a login on the device, "probation" and "trusted" if it did, less or
	// more than a day ago, "forked" if the cookie was seen in two places.
	State string
	Since time.Time // the account's first completed login on the device
	Last  time.Time // and its last one
}

const (
	stateStranger  = "stranger"
	stateProbation = "probation"
	stateTrusted   = "trusted"
	stateForked    = "forked"
)

// DeviceStore keeps devices. The duties are those of [SessionStore].
type DeviceStore interface {
	device(ctx context.Context, id deviceID) (device, bool, error)
	// updateDevice passes the device, or the zero device with its id, to change and
	// stores the result, unless change returns an error.
	updateDevice(ctx context.Context, id deviceID, change func(d *device, found bool) error) (device, error)
	// devicesOf is up to limit devices on which the subject completed a login, the
	// latest one first. They need have no other subjects, and no generations.
	devicesOf(ctx context.Context, subject string, limit int) ([]device, error)
	// forgetDevices deletes up to limit devices that completed their last login at
	// or before then, or did so at or before unused and were never presented.
	forgetDevices(ctx context.Context, then, unused time.Time, limit int) (int, error)
}

type deviceID [16]byte

// String is 26 letters and digits, as session ids are.
func (id deviceID) String() string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:])
}

// parseDeviceID reads what String wrote.
func parseDeviceID(text string) (id deviceID, ok bool) {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil || len(raw) != len(id) || deviceID(raw).String() != text {
		return id, false
	}
	return deviceID(raw), true
}

// device is what is stored. Its cookies are numbered: generation is that of the
// last one we made, presented that of the latest one a client has shown us.
// presented is generation, or one less while the client may not have got the
// latest; 0 before the first comes back.
type device struct {
	id         deviceID
	generation uint32
	presented  uint32
	rotated    time.Time // when the cookie of this generation was made
	used       time.Time // last completed login
	forked     time.Time // when two holders were noticed; zero: never
	subjects   []association
}

// association is an account that completed a login on a device.
type association struct {
	subject string
	since   time.Time
	last    time.Time
}

func (d *device) association(subject string) int {
	return slices.IndexFunc(d.subjects, func(a association) bool { return a.subject == subject })
}

// present is the showing of the cookie of a generation: it notes what that says
// about the device and reports whether anything changed.
//
// The latest cookie is always good. The one before it is good while nobody has
// shown the latest, because the answer that carried it may have been lost; and for
// ParallelFor after the rotation, because another tab may have sent its request
// before. Anything else means that two clients hold cookies of one device. Which
// of them is the owner cannot be told, so neither is believed again.
func (d *device) present(generation uint32, now time.Time, parallel time.Duration) (changed bool) {
	switch {
	case generation >= d.generation:
		// Later than the latest: the store was restored from an older copy, for the
		// cookie bears our signature.
		changed = generation > d.generation || d.presented != generation
		d.generation, d.presented = generation, generation
	case generation == d.generation-1 && (d.presented < d.generation || now.Sub(d.rotated) < parallel):
		if d.presented < generation {
			d.presented, changed = generation, true
		}
	case d.forked.IsZero():
		d.forked, changed = now, true
	}
	return changed
}

// Devices is the devices we gave a cookie to. Bounds: accounts per device,
// MaxSubjects; devices, by KeepFor and KeepUnused. Nothing is in memory.
type Devices struct {
	store DeviceStore
	key   func() (current []byte, all [][]byte)
	cfg   DevicesConfig
}

// OpenDevices returns the devices in store. key gives the keys of cookies: the
// current one signs, all of them (the current one included) are accepted. It is
// called for each cookie and must be cheap.
func OpenDevices(ctx context.Context, store DeviceStore, key func() (current []byte, all [][]byte), cfg DevicesConfig, _ time.Time) (*Devices, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if current, all := key(); len(current) < 16 || !slices.ContainsFunc(all, func(k []byte) bool { return subtle.ConstantTimeCompare(k, current) == 1 }) {
		return nil, errors.New("opening devices: the current cookie key is shorter than 16 bytes or not among those accepted")
	}
	if _, _, err := store.device(ctx, deviceID{}); err != nil {
		return nil, fmt.Errorf("opening devices: %w", err)
	}
	return &Devices{store: store, key: key, cfg: cfg}, nil
}

// Read is the device of a cookie as the account subject may see it; with no
// subject, at best a stranger. What we did not sign, or forgot, is no device and
// no error. A cookie that gives away a copy makes the device forked, durably.
func (ds *Devices) Read(ctx context.Context, cookie, subject string, now time.Time) (DeviceView, error) {
	now = stored(now)
	id, generation, ok := ds.parse(cookie)
	if !ok {
		return DeviceView{}, nil
	}
	d, found, err := ds.store.device(ctx, id)
	if err != nil {
		return DeviceView{}, fmt.Errorf("reading a device: %w", err)
	}
	if !found {
		return DeviceView{}, nil
	}
	if d.present(generation, now, ds.cfg.ParallelFor) {
		d, err = ds.store.updateDevice(ctx, id, func(d *device, found bool) error {
			if !found {
				return errForgotten
			}
			d.present(generation, now, ds.cfg.ParallelFor)
			return nil
		})
		if errors.Is(err, errForgotten) {
			return DeviceView{}, nil
		}
		if err != nil {
			return DeviceView{}, fmt.Errorf("noting a device: %w", err)
		}
	}
	return ds.view(&d, subject, now), nil
}

// errForgotten means that a device was deleted meanwhile.
var errForgotten = errors.New("the device was forgotten")

// view is d as subject may see it.
func (ds *Devices) view(d *device, subject string, now time.Time) DeviceView {
	v := DeviceView{ID: d.id.String(), State: stateStranger}
	if i := d.association(subject); i >= 0 {
		v.Since, v.Last = d.subjects[i].since, d.subjects[i].last
		v.State = stateTrusted
		if now.Sub(v.Since) < ds.cfg.Probation {
			v.State = stateProbation
		}
	}
	if !d.forked.IsZero() {
		v.State = stateForked
	}
	return v
}

// Complete notes a completed login of subject and returns the cookie to set. A
// device that presents its latest cookie gets the next one; one that presents the
// cookie before, rightfully, gets the latest again. Without a good cookie, or with
// one of a forked device, it is a new device. The ninth account takes the place of
// the one that used the device longest ago.
func (ds *Devices) Complete(ctx context.Context, cookie, subject string, now time.Time) (string, DeviceView, error) {
	now = stored(now)
	if subject == "" {
		return "", DeviceView{}, errors.New("completing a login on a device: no subject: a device is bound to accounts")
	}
	if id, generation, ok := ds.parse(cookie); ok {
		var forked bool
		d, err := ds.store.updateDevice(ctx, id, func(d *device, found bool) error {
			if !found {
				return errForgotten
			}
			d.present(generation, now, ds.cfg.ParallelFor)
			if forked = !d.forked.IsZero(); forked {
				return nil
			}
			if generation == d.generation {
				d.generation++
				d.rotated = now
			}
			ds.associate(d, subject, now)
			return nil
		})
		switch {
		case errors.Is(err, errForgotten):
		case err != nil:
			return "", DeviceView{}, fmt.Errorf("completing a login on a device: %w", err)
		case !forked:
			return ds.sign(d.id, d.generation), ds.view(&d, subject, now), nil
		}
	}
	var id deviceID
	rand.Read(id[:])
	d, err := ds.store.updateDevice(ctx, id, func(d *device, _ bool) error {
		d.generation, d.rotated = 1, now
		ds.associate(d, subject, now)
		return nil
	})
	if err != nil {
		return "", DeviceView{}, fmt.Errorf("making a device: %w", err)
	}
	return ds.sign(d.id, d.generation), ds.view(&d, subject, now), nil
}

// associate notes a completed login of subject on d.
func (ds *Devices) associate(d *device, subject string, now time.Time) {
	d.used = now
	if i := d.association(subject); i >= 0 {
		d.subjects[i].last = now
		return
	}
	for len(d.subjects) >= ds.cfg.MaxSubjects {
		oldest := 0
		for i := range d.subjects {
			if d.subjects[i].last.Before(d.subjects[oldest].last) {
				oldest = i
			}
		}
		d.subjects = slices.Delete(d.subjects, oldest, oldest+1)
	}
	d.subjects = append(d.subjects, association{subject, now, now})
}

const devicesMax = 100 // devices that OfSubject lists

// OfSubject is the devices on which an account completed a login, the latest one
// first, at most 100.
func (ds *Devices) OfSubject(ctx context.Context, subject string, now time.Time) ([]DeviceView, error) {
	if checkOwner(subject) != nil {
		return nil, nil
	}
	all, err := ds.store.devicesOf(ctx, subject, devicesMax)
	if err != nil {
		return nil, fmt.Errorf("listing the devices of an account: %w", err)
	}
	var views []DeviceView
	for i := range all {
		views = append(views, ds.view(&all[i], subject, stored(now)))
	}
	return views, nil
}

// Forget makes the account a stranger on a device, as if it had never completed a
// login there. Other accounts keep theirs. That there is no such device, or none of
// the account, is no error.
func (ds *Devices) Forget(ctx context.Context, subject, id string, _ time.Time) error {
	parsed, ok := parseDeviceID(id)
	if !ok || subject == "" {
		return nil
	}
	_, err := ds.store.updateDevice(ctx, parsed, func(d *device, found bool) error {
		i := d.association(subject)
		if !found || i < 0 {
			return errForgotten
		}
		d.subjects = slices.Delete(d.subjects, i, i+1)
		return nil
	})
	if err != nil && !errors.Is(err, errForgotten) {
		return fmt.Errorf("forgetting a device: %w", err)
	}
	return nil
}

// Sweep forgets devices that were not used for long and returns how many.
func (ds *Devices) Sweep(ctx context.Context, now time.Time) (int, error) {
	now = stored(now)
	total := 0
	for {
		n, err := ds.store.forgetDevices(ctx, now.Add(-ds.cfg.KeepFor), now.Add(-ds.cfg.KeepUnused), sweepBatch)
		total += n
		if err != nil {
			return total, fmt.Errorf("forgetting devices: %w", err)
		}
		if n < sweepBatch {
			return total, nil
		}
	}
}

// A device cookie is base64url of: id, 16 bytes; generation, 4 bytes; the first 16
// bytes of an HMAC-SHA-256 over both.
const (
	deviceMessage = 16 + 4
	deviceMAC     = 16
	deviceCookie  = (deviceMessage + deviceMAC) / 3 * 4 // characters, no padding needed
	deviceDomain  = "kidoban device v1\x00"
)

// parse reads a cookie that we signed. The signature is compared in constant time
// with that of every key, and nothing of the cookie is looked at before.
func (ds *Devices) parse(cookie string) (id deviceID, generation uint32, ok bool) {
	if len(cookie) != deviceCookie {
		return id, 0, false
	}
	var raw [deviceMessage + deviceMAC]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(cookie)); err != nil || n != len(raw) {
		return id, 0, false // 48 characters of which some are line breaks, which the decoder ignores, come up short
	}
	_, keys := ds.key()
	matches := 0
	for _, key := range keys {
		want := macDevice(key, raw[:deviceMessage])
		matches |= subtle.ConstantTimeCompare(want[:], raw[deviceMessage:])
	}
	generation = binary.BigEndian.Uint32(raw[16:])
	if matches != 1 || generation == 0 {
		return id, 0, false
	}
	return deviceID(raw[:16]), generation, true
}

func (ds *Devices) sign(id deviceID, generation uint32) string {
	var raw [deviceMessage + deviceMAC]byte
	copy(raw[:], id[:])
	binary.BigEndian.PutUint32(raw[16:], generation)
	key, _ := ds.key()
	mac := macDevice(key, raw[:deviceMessage])
	copy(raw[deviceMessage:], mac[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func macDevice(key, message []byte) (mac [deviceMAC]byte) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(deviceDomain))
	h.Write(message)
	copy(mac[:], h.Sum(nil))
	return mac
}
