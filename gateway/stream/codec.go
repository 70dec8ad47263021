package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kidoban/kidoban/detectors"
)

// longest is the most bytes of any text of an event; more is cut off when the
// event is published. All texts at their longest still fit an envelope.
const longest = 4096

// shorter is the same of the texts that later versions added: words, digests and
// names of operators.
const shorter = 256

var (
	errShort     = errors.New("it ends too early")
	errTrailing  = errors.New("bytes are left over")
	errCanonical = errors.New("it is not in its one form")
)

func appendText(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// decoder reads what the append functions write. After its first error it reads
// zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail(errCanonical)
	}
	return v == 1
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	switch {
	case n == 0:
		d.fail(errShort)
		return 0
	case n < 0, n > 1 && d.b[n-1] == 0:
		d.fail(errCanonical)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) text(most uint64) string {
	n := d.uvarint()
	if n > most {
		d.fail(fmt.Errorf("a text of %d bytes, want at most %d", n, most))
		return ""
	}
	return string(d.take(n))
}

// end is the first error, or that bytes are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		return errTrailing
	}
	return d.err
}

// The bits of an event's mask: which fields follow, in this order. A field that
// is zero is absent.
const (
	hasKind = 1 << iota
	hasTime // differs from the stream's
	hasDigest
	hasDisplay
	hasAccount
	hasSince
	hasOrganization
	hasSession
	hasAddress
	hasNetwork      // given in full
	countingNetwork // follows from the address
	hasPort
	hasASN
	hasCountry
	isShared
	hasDevice
	hasDeviceState
	hasFingerprint
	hasRoute
	hasCredential
	hasOutcome
	hasReason
	isRepeat
	isTypo
	isBreached
	hasPopularity
	isAmbiguous
	hasSize
	firstBits = 1<<iota - 1 // of envelopes of version 1
)

// The bits that version 2 added, and the fields after those of version 1.
const (
	hasExistence = (firstBits + 1) << iota
	isUnproven
	hasJA4
	hasHeaders
	hasFamily
	isIncoherent
	hasPassword // the digest
	hasNear
	hasLogins
	usedNetwork
	usedOperator
	usedClient
	hasCapacity
	secondBits = (firstBits+1)<<iota - 1 // of envelopes of versions 1 and 2
)

// The bits that version 3 added, and the fields after those of version 2.
const (
	hasTargets = (secondBits + 1) << iota
	hasAct
	hasActor
	thirdBits = (secondBits+1)<<iota - 1 // of envelopes of versions 1 to 3
)

// The bits that version 4 added, and the fields after those of version 3.
const (
	hasOffset = (thirdBits + 1) << iota
	hasShift
	allBits = (thirdBits+1)<<iota - 1
)

// nearest is the most digests of what a password is near to.
const nearest = 33

// normalize gives e the form in which every node sees it: texts bounded, times in
// UTC without monotonic readings, addresses without zones.
func normalize(e *detectors.Event) {
	cut(&e.Kind, longest)
	cut(&e.Name.Display, longest)
	cut(&e.Account, longest)
	cut(&e.Organization, longest)
	cut(&e.Session, longest)
	cut(&e.Source.Country, longest)
	cut(&e.Device.ID, longest)
	cut(&e.Device.State, longest)
	cut(&e.Fingerprint, longest)
	cut(&e.Route, longest)
	cut(&e.Credential, longest)
	cut(&e.Outcome, longest)
	cut(&e.Reason, longest)
	cut(&e.Existence, shorter)
	cut(&e.Client.JA4, shorter)
	cut(&e.Client.Headers, shorter)
	cut(&e.Client.Family, shorter)
	cut(&e.Act, shorter)
	cut(&e.Actor, shorter)
	if !e.AccountSince.IsZero() {
		e.AccountSince = e.AccountSince.UTC().Round(0)
	}
	if e.Source.Address.Zone() != "" {
		e.Source.Address = e.Source.Address.WithZone("")
	}
	if !e.Source.Network.IsValid() {
		e.Source.Network = netip.Prefix{}
	}
	e.Password.Popularity = min(max(e.Password.Popularity, 0), math.MaxInt32)
	if e.Password.Near = e.Password.Near[:min(len(e.Password.Near), nearest)]; len(e.Password.Near) == 0 {
		e.Password.Near = nil
	}
	e.History.Logins = min(max(e.History.Logins, 0), math.MaxInt32)
	e.History.Capacity = min(max(e.History.Capacity, 0), math.MaxInt32)
	e.Size = max(e.Size, 0)
	e.Targets = min(max(e.Targets, 0), math.MaxInt32)
}

// cut shortens a text to what is carried, between characters.
func cut[T ~string](text *T, most int) {
	if len(*text) <= most {
		return
	}
	n := most
	for n > most-utf8.UTFMax && !utf8.RuneStart((*text)[n]) {
		n--
	}
	*text = T(strings.Clone(string((*text)[:n])))
}

func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func (d *decoder) time() time.Time {
	sec, nsec := d.varint(), d.uvarint()
	if nsec >= uint64(time.Second) {
		d.fail(errCanonical)
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

// appendEvent writes everything of e but its key.
func appendEvent(b []byte, e *detectors.Event) []byte {
	var mask uint64
	flag := func(bit uint64, on bool) {
		if on {
			mask |= bit
		}
	}
	flag(hasKind, e.Kind != "")
	flag(hasTime, !e.Time.Equal(e.StreamTime))
	flag(hasDigest, !e.Name.Digest.IsZero())
	flag(hasDisplay, e.Name.Display != "")
	flag(hasAccount, e.Account != "")
	flag(hasSince, !e.AccountSince.IsZero())
	flag(hasOrganization, e.Organization != "")
	flag(hasSession, e.Session != "")
	flag(hasAddress, e.Source.Address.IsValid())
	if e.Source.Network.IsValid() {
		counting := e.Source.Network == detectors.CountingNetwork(e.Source.Address)
		flag(countingNetwork, counting)
		flag(hasNetwork, !counting)
	}
	flag(hasPort, e.Source.Port != 0)
	flag(hasASN, e.Source.ASN != 0)
	flag(hasCountry, e.Source.Country != "")
	flag(isShared, e.Source.Shared)
	flag(hasDevice, e.Device.ID != "")
	flag(hasDeviceState, e.Device.State != "")
	flag(hasFingerprint, e.Fingerprint != "")
	flag(hasRoute, e.Route != "")
	flag(hasCredential, e.Credential != "")
	flag(hasOutcome, e.Outcome != "")
	flag(hasReason, e.Reason != "")
	flag(isRepeat, e.Password.Repeat)
	flag(isTypo, e.Password.Typo)
	flag(isBreached, e.Password.Breached)
	flag(hasPopularity, e.Password.Popularity != 0)
	flag(isAmbiguous, e.Ambiguous)
	flag(hasSize, e.Size != 0)
	flag(hasExistence, e.Existence != "")
	flag(isUnproven, e.Unproven)
	flag(hasJA4, e.Client.JA4 != "")
	flag(hasHeaders, e.Client.Headers != "")
	flag(hasFamily, e.Client.Family != "")
	flag(isIncoherent, e.Client.Incoherent)
	flag(hasPassword, !e.Password.Digest.IsZero())
	flag(hasNear, len(e.Password.Near) > 0)
	flag(hasLogins, e.History.Logins != 0)
	flag(usedNetwork, e.History.Network)
	flag(usedOperator, e.History.Operator)
	flag(usedClient, e.History.Client)
	flag(hasCapacity, e.History.Capacity != 0)
	flag(hasTargets, e.Targets != 0)
	flag(hasAct, e.Act != "")
	flag(hasActor, e.Actor != "")
	flag(hasOffset, e.Offset != 0)
	flag(hasShift, e.Shift != 0)

	b = binary.AppendUvarint(b, mask)
	b = appendTime(b, e.StreamTime)
	text := func(bit uint64, v string) {
		if mask&bit != 0 {
			b = appendText(b, v)
		}
	}
	text(hasKind, string(e.Kind))
	if mask&hasTime != 0 {
		b = binary.AppendVarint(b, int64(e.Time.Sub(e.StreamTime)))
	}
	if mask&hasDigest != 0 {
		b = append(b, e.Name.Digest[:]...)
	}
	text(hasDisplay, e.Name.Display)
	text(hasAccount, string(e.Account))
	if mask&hasSince != 0 {
		b = appendTime(b, e.AccountSince)
	}
	text(hasOrganization, string(e.Organization))
	text(hasSession, e.Session)
	if mask&hasAddress != 0 {
		b = appendAddress(b, e.Source.Address)
	}
	if mask&hasNetwork != 0 {
		b = appendAddress(b, e.Source.Network.Addr())
		b = append(b, byte(e.Source.Network.Bits()))
	}
	if mask&hasPort != 0 {
		b = binary.AppendUvarint(b, uint64(e.Source.Port))
	}
	if mask&hasASN != 0 {
		b = binary.AppendUvarint(b, uint64(e.Source.ASN))
	}
	text(hasCountry, e.Source.Country)
	text(hasDevice, e.Device.ID)
	text(hasDeviceState, string(e.Device.State))
	text(hasFingerprint, e.Fingerprint)
	text(hasRoute, string(e.Route))
	text(hasCredential, e.Credential)
	text(hasOutcome, string(e.Outcome))
	text(hasReason, e.Reason)
	if mask&hasPopularity != 0 {
		b = binary.AppendUvarint(b, uint64(e.Password.Popularity))
	}
	if mask&hasSize != 0 {
		b = binary.AppendUvarint(b, uint64(e.Size))
	}
	text(hasExistence, string(e.Existence))
	text(hasJA4, e.Client.JA4)
	text(hasHeaders, e.Client.Headers)
	text(hasFamily, e.Client.Family)
	if mask&hasPassword != 0 {
		b = append(b, e.Password.Digest[:]...)
	}
	if mask&hasNear != 0 {
		b = append(b, byte(len(e.Password.Near)))
		for _, n := range e.Password.Near {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	if mask&hasLogins != 0 {
		b = binary.AppendUvarint(b, uint64(e.History.Logins))
	}
	if mask&hasCapacity != 0 {
		b = binary.AppendUvarint(b, uint64(e.History.Capacity))
	}
	if mask&hasTargets != 0 {
		b = binary.AppendUvarint(b, uint64(e.Targets))
	}
	text(hasAct, string(e.Act))
	text(hasActor, e.Actor)
	if mask&hasOffset != 0 {
		b = binary.AppendVarint(b, int64(e.Offset))
	}
	if mask&hasShift != 0 {
		b = binary.AppendVarint(b, int64(e.Shift))
	}
	return b
}

// bodyVersion is the version of the envelope that a body needs.
func bodyVersion(body []byte) byte {
	switch mask, _ := binary.Uvarint(body); {
	case mask > thirdBits:
		return 4
	case mask > secondBits:
		return 3
	case mask > firstBits:
		return 2
	}
	return 1
}

func appendAddress(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return append(append(b, 4), v[:]...)
	}
	v := a.As16()
	return append(append(b, 6), v[:]...)
}

func (d *decoder) address() netip.Addr {
	switch d.byte() {
	case 4:
		a, _ := netip.AddrFromSlice(d.take(4))
		return a
	case 6:
		a, _ := netip.AddrFromSlice(d.take(16))
		return a
	}
	d.fail(errCanonical)
	return netip.Addr{}
}

// decodeEvent reads what appendEvent writes, and nothing else.
func decodeEvent(b []byte) (detectors.Event, error) {
	var e detectors.Event
	d := decoder{b: b}
	mask := d.uvarint()
	if mask&^uint64(allBits) != 0 || mask&hasNetwork != 0 && mask&countingNetwork != 0 {
		d.fail(errCanonical)
	}
	bounded := func(bit, most uint64) string {
		if mask&bit == 0 || d.err != nil {
			return ""
		}
		v := d.text(most)
		if v == "" {
			d.fail(errCanonical)
		}
		return v
	}
	text := func(bit uint64) string { return bounded(bit, longest) }
	number := func(bit, most uint64) uint64 {
		if mask&bit == 0 || d.err != nil {
			return 0
		}
		v := d.uvarint()
		if v == 0 || v > most {
			d.fail(errCanonical)
		}
		return v
	}
	minutes := func(bit uint64) int16 {
		if mask&bit == 0 || d.err != nil {
			return 0
		}
		v := d.varint()
		if v == 0 || v != int64(int16(v)) {
			d.fail(errCanonical)
		}
		return int16(v)
	}
	e.StreamTime = d.time()
	e.Kind = detectors.Kind(text(hasKind))
	e.Time = e.StreamTime
	if mask&hasTime != 0 {
		off := time.Duration(d.varint())
		if off == 0 || off > Skew || off < -Skew {
			d.fail(errCanonical)
		}
		e.Time = e.StreamTime.Add(off)
	}
	digest := func(bit uint64) (v detectors.Digest) {
		if mask&bit == 0 || d.err != nil {
			return v
		}
		copy(v[:], d.take(uint64(len(v))))
		if v.IsZero() {
			d.fail(errCanonical)
		}
		return v
	}
	e.Name.Digest = digest(hasDigest)
	e.Name.Display = text(hasDisplay)
	e.Account = detectors.Account(text(hasAccount))
	if mask&hasSince != 0 {
		if e.AccountSince = d.time(); e.AccountSince.IsZero() {
			d.fail(errCanonical)
		}
	}
	e.Organization = detectors.Organization(text(hasOrganization))
	e.Session = text(hasSession)
	if mask&hasAddress != 0 {
		e.Source.Address = d.address()
	}
	counting := detectors.CountingNetwork(e.Source.Address)
	if mask&countingNetwork != 0 {
		if e.Source.Network = counting; !counting.IsValid() {
			d.fail(errCanonical)
		}
	}
	if mask&hasNetwork != 0 {
		a := d.address()
		e.Source.Network = netip.PrefixFrom(a, int(d.byte()))
		if !e.Source.Network.IsValid() || e.Source.Network == counting {
			d.fail(errCanonical)
		}
	}
	e.Source.Port = uint16(number(hasPort, math.MaxUint16))
	e.Source.ASN = uint32(number(hasASN, math.MaxUint32))
	e.Source.Country = text(hasCountry)
	e.Source.Shared = mask&isShared != 0
	e.Device.ID = text(hasDevice)
	e.Device.State = detectors.DeviceState(text(hasDeviceState))
	e.Fingerprint = text(hasFingerprint)
	e.Route = detectors.RouteClass(text(hasRoute))
	e.Credential = text(hasCredential)
	e.Outcome = detectors.Outcome(text(hasOutcome))
	e.Reason = text(hasReason)
	e.Password.Repeat = mask&isRepeat != 0
	e.Password.Typo = mask&isTypo != 0
	e.Password.Breached = mask&isBreached != 0
	e.Password.Popularity = int(number(hasPopularity, math.MaxInt32))
	e.Ambiguous = mask&isAmbiguous != 0
	e.Size = int64(number(hasSize, math.MaxInt64))
	e.Existence = detectors.Existence(bounded(hasExistence, shorter))
	e.Unproven = mask&isUnproven != 0
	e.Client.JA4 = bounded(hasJA4, shorter)
	e.Client.Headers = bounded(hasHeaders, shorter)
	e.Client.Family = bounded(hasFamily, shorter)
	e.Client.Incoherent = mask&isIncoherent != 0
	e.Password.Digest = digest(hasPassword)
	if mask&hasNear != 0 {
		n := d.byte()
		if n == 0 || n > nearest {
			d.fail(errCanonical)
		}
		for b := d.take(4 * uint64(n)); len(b) > 0; b = b[4:] {
			e.Password.Near = append(e.Password.Near, binary.BigEndian.Uint32(b))
		}
	}
	e.History.Logins = int(number(hasLogins, math.MaxInt32))
	e.History.Network = mask&usedNetwork != 0
	e.History.Operator = mask&usedOperator != 0
	e.History.Client = mask&usedClient != 0
	e.History.Capacity = int(number(hasCapacity, math.MaxInt32))
	e.Targets = int(number(hasTargets, math.MaxInt32))
	e.Act = detectors.Act(bounded(hasAct, shorter))
	e.Actor = bounded(hasActor, shorter)
	e.Offset = minutes(hasOffset)
	e.Shift = minutes(hasShift)
	if err := d.end(); err != nil {
		return detectors.Event{}, err
	}
	return e, nil
}
