package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/client"
	"github.com/kidoban/kidoban/rules"
)

const (
	maxID   = 256 // bytes
	maxText = 256 // bytes of an identifier that is kept
	ladder  = 48  // the highest popularity

	zonesMax = 2048 // names of zones that are kept, more than there are
)

// jsonl reads JSON Lines: an object a line, with the fields below.
type jsonl struct{ all bool } // kinds; else log-ins alone

// field is one of the fields of a line. The first of its names that has a value
// counts; null and "" are none.
type field struct {
	names []string
	of    []detectors.Kind // those that have it; see has
	read  func(v json.RawMessage, a *Attempt, r *Reader) error
}

// Which kinds of events have a field. Those of logins are read of log-ins alone, and the
// last ones of all others: a log of log-ins may have fields of these names that mean
// something else.
var (
	every    []detectors.Kind // nil
	logins   = []detectors.Kind{detectors.Login}
	named    = []detectors.Kind{detectors.Login, detectors.Request}
	routed   = []detectors.Kind{detectors.Login, detectors.Door, detectors.Session, detectors.Request, detectors.Message}
	others   = otherKinds
	acted    = []detectors.Kind{detectors.Session, detectors.Operator}
	bodies   = []detectors.Kind{detectors.Request, detectors.Message}
	messages = []detectors.Kind{detectors.Message}
	requests = []detectors.Kind{detectors.Door, detectors.Session, detectors.Request, detectors.Message}
	doors    = []detectors.Kind{detectors.Door}
	proofs   = []detectors.Kind{detectors.Door, detectors.Session}
)

// has reports whether events of a kind have f.
func (f *field) has(kind detectors.Kind) bool { return f.of == nil || slices.Contains(f.of, kind) }

var fields = []field{
	{[]string{"id", "event_id", "request_id"}, every, readID},
	{[]string{"time", "timestamp", "ts", "@timestamp", "created_at"}, every, readTime},
	{[]string{"key"}, every, readKey},
	{[]string{"kind"}, every, func(json.RawMessage, *Attempt, *Reader) error { return nil }}, // read first
	{[]string{"name", "username", "user_name", "user", "login", "email"}, named, text((*Attempt).setName)},
	{[]string{"account", "account_id", "user_id"}, every, text(func(a *Attempt, s string) { a.Event.Account = detectors.Account(bounded(s)) })},
	{[]string{"account_since"}, every, readSince},
	{[]string{"organization", "organisation", "org", "tenant", "company"}, every, text(func(a *Attempt, s string) { a.Event.Organization = detectors.Organization(bounded(s)) })},
	{[]string{"zone", "time_zone", "timezone", "tz"}, every, readZone},
	{[]string{"exists", "user_exists", "account_exists"}, logins, tri(func(a *Attempt, t Tri) { a.Exists = t })},
	{[]string{"outcome", "result"}, every, readOutcome},
	{[]string{"correct", "success", "password_correct"}, logins, tri(func(a *Attempt, t Tri) { a.Correct = t })},
	{[]string{"address", "ip", "src_ip", "source_ip", "client_ip", "remote_ip", "remote_addr", "ip_address"}, every, readAddress},
	{[]string{"asn"}, every, readASN},
	{[]string{"country", "country_code"}, every, readCountry},
	{[]string{"ua", "user_agent", "useragent"}, every, readUserAgent},
	{[]string{"ja4"}, every, text(func(a *Attempt, s string) { a.Event.Client.JA4 = bounded(s) })},
	{[]string{"headers", "header_set"}, every, readHeaders},
	{[]string{"device", "device_id", "cookie", "device_cookie"}, every, readDevice},
	{[]string{"password_digest", "password_hash"}, logins, text(func(a *Attempt, s string) { a.Event.Password.Digest = digest("password", s) })},
	{[]string{"typo", "typo_flag", "is_typo"}, logins, tri(func(a *Attempt, t Tri) { a.TypoOf = t == Yes })},
	{[]string{"breached"}, logins, tri(func(a *Attempt, t Tri) { a.Event.Password.Breached = t == Yes })},
	{[]string{"popularity"}, logins, readPopularity},
	{[]string{"route"}, routed, readRoute},
	{[]string{"session", "session_id"}, others, text(func(a *Attempt, s string) { a.Event.Session = bounded(s) })},
	{[]string{"act"}, acted, text(func(a *Attempt, s string) { a.Event.Act = detectors.Act(bounded(s)) })},
	{[]string{"actor"}, acted, readActor},
	{[]string{"credential"}, proofs, text(func(a *Attempt, s string) { a.Event.Credential = bounded(s) })},
	{[]string{"unproven"}, doors, tri(func(a *Attempt, t Tri) { a.Event.Unproven = t == Yes })},
	{[]string{"size"}, bodies, readSize},
	{[]string{"targets"}, messages, readTargets},
	{[]string{"ambiguous"}, requests, tri(func(a *Attempt, t Tri) { a.Event.Ambiguous = t == Yes })},
}

func (p jsonl) parse(line []byte, r *Reader, emit func(Attempt)) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(line, &values); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	if values == nil {
		return errors.New("not a JSON object: null")
	}
	kind, err := kindOf(values)
	if err != nil {
		return err
	}
	r.strict = kind != detectors.Login
	if r.strict && !p.all {
		return errIgnored
	}
	if r.strict {
		if err := strict(kind, values); err != nil {
			return err
		}
	}
	var a Attempt
	a.Event.Kind = kind
	for i := range fields {
		f := &fields[i]
		if !f.has(kind) {
			continue
		}
		for _, name := range f.names {
			v := values[name]
			if absent(v) {
				continue
			}
			if err := f.read(v, &a, r); err != nil {
				return fmt.Errorf("%s %.80s: %w", name, v, err)
			}
			break
		}
	}
	if r.strict {
		if err := whole(&a); err != nil {
			return err
		}
	}
	emit(a)
	return nil
}

// scalar is v, a string or number, as text.
func scalar(v json.RawMessage) (string, error) {
	switch c := v[0]; {
	case c == '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	case c == '-' || '0' <= c && c <= '9':
		return string(v), nil
	}
	return "", errors.New("want a string or a number")
}

// text reads a string, or a number as it is written.
func text(set func(*Attempt, string)) func(json.RawMessage, *Attempt, *Reader) error {
	return func(v json.RawMessage, a *Attempt, _ *Reader) error {
		s, err := scalar(v)
		if err == nil {
			set(a, s)
		}
		return err
	}
}

// bounded is s, or what stands for it where it is too long to be kept.
func bounded(s string) string {
	if len(s) > maxText {
		return "sha256:" + digest("text", s).String()
	}
	return s
}

// tri reads true or false, as boolean, 1 or 0, or as a word.
func tri(set func(*Attempt, Tri)) func(json.RawMessage, *Attempt, *Reader) error {
	return func(v json.RawMessage, a *Attempt, _ *Reader) error {
		switch word := strings.ToLower(strings.Trim(string(v), `"`)); word {
		case "true", "1", "yes":
			set(a, Yes)
		case "false", "0", "no":
			set(a, No)
		case "unknown":
		default:
			return errors.New("want true, false or null")
		}
		return nil
	}
}

func readID(v json.RawMessage, a *Attempt, _ *Reader) error {
	if _, err := scalar(v); err != nil {
		return err
	}
	if len(v) > maxID {
		return fmt.Errorf("longer than %d bytes", maxID)
	}
	a.ID = v
	return nil
}

func readTime(v json.RawMessage, a *Attempt, _ *Reader) (err error) {
	if a.Event.Time, err = timeOf(v); err == nil && a.Event.Time.Unix() < 0 {
		err = errTime
	}
	return err
}

func readSince(v json.RawMessage, a *Attempt, _ *Reader) (err error) {
	a.Event.AccountSince, err = timeOf(v)
	return err
}

var errTime = errors.New("want RFC 3339, or seconds or milliseconds since 1970, until 2200")

// timeOf reads RFC 3339, with or without T and zone, which is UTC then; or what passed
// since 1970 in seconds, or whole milli-, micro- or nanoseconds, as the magnitude tells.
func timeOf(v json.RawMessage) (t time.Time, err error) {
	s, err := scalar(v)
	if err != nil {
		return t, err
	}
	if n, failed := strconv.ParseFloat(s, 64); failed == nil {
		t, err = sinceEpoch(s, n)
	} else {
		for _, layout := range [...]string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006/01/02 15:04:05"} {
			if t, err = time.Parse(layout, s); err == nil {
				break
			}
		}
	}
	if err != nil || t.Year() < 1 || t.Year() > 2200 {
		return time.Time{}, errTime
	}
	return t.UTC(), nil
}

func sinceEpoch(s string, n float64) (time.Time, error) {
	const most = 7_258_118_400 // seconds until 2200
	if whole, err := strconv.ParseInt(s, 10, 64); err == nil && whole >= most {
		switch {
		case whole < most*1e3:
			return time.UnixMilli(whole), nil
		case whole < most*1e6:
			return time.UnixMicro(whole), nil
		}
		return time.Unix(0, whole), nil
	}
	if n >= most && n < most*1e3 {
		n /= 1e3
	}
	if !(n > -most && n < most) {
		return time.Time{}, errTime
	}
	seconds, rest := math.Modf(n)
	return time.Unix(int64(seconds), int64(math.Round(rest*1e6))*1e3), nil
}

func readZone(v json.RawMessage, a *Attempt, r *Reader) error {
	if v[0] != '"' {
		return errors.New("want a string")
	}
	name, err := scalar(v)
	if err != nil {
		return err
	}
	zone, ok := r.zones[name]
	if !ok {
		if zone, _ = rules.Zone(name); len(r.zones) < zonesMax && len(name) <= maxText {
			r.zones[name] = zone
		}
	}
	if a.zone = zone; zone == nil {
		r.unsure("zone", name, "a name of the IANA database, such as Asia/Tokyo")
	}
	return nil
}

func readKey(v json.RawMessage, a *Attempt, _ *Reader) error {
	if v[0] != '{' {
		return errors.New(`want {"node":...,"incarnation":...,"sequence":...}`)
	}
	var k detectors.EventKey
	err := json.Unmarshal(v, &k)
	if k.Sequence > 0 { // without one it is the key of many events, which detectors draw chance from
		a.Event.Key = detectors.EventKey{Node: bounded(k.Node), Incarnation: k.Incarnation, Sequence: k.Sequence}
	}
	return err
}

func readOutcome(v json.RawMessage, a *Attempt, r *Reader) error {
	s := strings.Trim(string(v), `"`)
	switch {
	case oneOf(s, "success", "succeeded", "successful", "ok", "true", "1", "yes", "accepted", "allowed"):
		a.Correct = Yes
	case oneOf(s, "failure", "failed", "fail", "false", "0", "no", "denied", "invalid", "wrong", "error"):
		a.Correct = No
	case oneOf(s, "refused", "blocked", "limited"):
		a.Event.Outcome = detectors.Refused
	case oneOf(s, "unknown", "aborted"):
	case v[0] == '"':
		return r.unsure("outcome", s, "success, failure, refused or unknown")
	default:
		return errors.New("want success, failure, refused or unknown")
	}
	return nil
}

func readAddress(v json.RawMessage, a *Attempt, r *Reader) error {
	if v[0] != '"' {
		return errors.New("want a string")
	}
	s, err := scalar(v)
	if err == nil && !a.setAddress(strings.TrimSpace(s)) {
		err = r.unsure("address", s, "an IPv4 or IPv6 address, with a port or without")
	}
	return err
}

func readASN(v json.RawMessage, a *Attempt, r *Reader) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	digits := s
	if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
		digits, _, _ = strings.Cut(s[2:], " ") // a name may follow
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return r.unsure("asn", s, `a number such as 64500 or "AS64500"`)
	}
	a.Event.Source.ASN = uint32(n)
	return nil
}

var countryCode = regexp.MustCompile(`^[A-Z]{2}$`)

func readCountry(v json.RawMessage, a *Attempt, r *Reader) error {
	if v[0] != '"' {
		return errors.New("want a string")
	}
	s, err := scalar(v)
	code := strings.ToUpper(s)
	switch {
	case err != nil:
		return err
	case !countryCode.MatchString(code):
		return r.unsure("country", s, "two letters of ISO 3166-1")
	case code != "XX" && code != "ZZ": // both are in use for "not known"
		a.Event.Source.Country = code
	}
	return nil
}

func readUserAgent(v json.RawMessage, a *Attempt, r *Reader) error {
	if v[0] != '"' {
		return errors.New("want a string")
	}
	s, err := scalar(v)
	if err == nil {
		a.Event.Client.Family = bounded(client.Family(s))
	}
	return err
}

var setDigest = regexp.MustCompile(`^[0-9a-f]{12}$`)

func readHeaders(v json.RawMessage, a *Attempt, r *Reader) error {
	var names []string
	switch v[0] {
	case '[':
		if err := json.Unmarshal(v, &names); err != nil {
			return errors.New("want a list of names, or a string that stands for the set")
		}
	case '"':
		s, err := scalar(v)
		if err != nil {
			return err
		}
		if a.Event.Client.Headers = s; !setDigest.MatchString(s) {
			a.Event.Client.Headers = digest("headers", s).String()[:12]
		}
		return nil
	default:
		return errors.New("want a list of names, or a string that stands for the set")
	}
	a.Event.Client.Headers = client.Headers(names)
	return nil
}

// A plain identifier, whose state the log does not tell, is one that Directory knows
// or that vouches for nobody.
func readDevice(v json.RawMessage, a *Attempt, r *Reader) error {
	d := &a.Event.Device
	switch c := v[0]; {
	case c == '{':
		var object struct{ ID, State json.RawMessage }
		if err := json.Unmarshal(v, &object); err != nil {
			return err
		}
		var err error
		if d.ID, err = optional(object.ID); err != nil {
			return fmt.Errorf("id: %w", err)
		}
		state, err := optional(object.State)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		if state == "" {
			return nil
		}
		if d.State = stateOf(state); d.State == detectors.NoDevice {
			if d.ID = ""; state != "none" {
				return r.unsure("state of the device", state, "one of none, stranger, probation, trusted, forked")
			}
		}
	case string(v) == "true":
		d.State = detectors.Trusted
	case string(v) == "false":
	default:
		id, err := scalar(v)
		if err != nil {
			return errors.New(`want an identifier, {"id":...,"state":...}, or whether it is one that the account knows`)
		}
		d.ID = bounded(id)
	}
	return nil
}

// optional is v as text; empty where there is none.
func optional(v json.RawMessage) (string, error) {
	if len(v) == 0 || string(v) == "null" {
		return "", nil
	}
	s, err := scalar(v)
	return bounded(s), err
}

func stateOf(s string) detectors.DeviceState {
	switch state := detectors.DeviceState(strings.ToLower(s)); state {
	case detectors.Stranger, detectors.Probation, detectors.Trusted, detectors.Forked:
		return state
	}
	return detectors.NoDevice
}

func readPopularity(v json.RawMessage, a *Attempt, r *Reader) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n != math.Trunc(n) || n < 0 || n > ladder {
		return r.unsure("popularity", s, "a whole number from 0 to 48")
	}
	a.Event.Password.Popularity = int(n)
	return nil
}

// A log-in's route that is no class is a path.
func readRoute(v json.RawMessage, a *Attempt, _ *Reader) error {
	if a.Event.Kind != detectors.Login {
		return readClass(v, a)
	}
	s, err := scalar(v)
	if err == nil && s == string(detectors.TokenMint) {
		a.Event.Route = detectors.TokenMint
	}
	return err
}
