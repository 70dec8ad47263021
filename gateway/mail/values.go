package mail

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a reader's time zone is known on every machine

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	"github.com/kidoban/kidoban/policies"
)

// values are all that a template can say. They are ready to be read: in the
// reader's language and time zone, and harmless.
type values struct {
	Service string // the service's name
	Link    string // where it is
	At      string // when it happened

	Account string // as its owner knows it
	Place   string // the country it came from
	Client  string // the program it came from, such as "Firefox on Windows"
	Factor  string // a kind of second factor
	Name    string // what its owner calls the factor or device
	Count   string
	Code    string
	Until   string
	URL     string
	By      string // who did it, where not the account's owner

	Decision, Scope, Value, Action, Origin, Rule, Reason, Incident, Mode string // of a decision
	Category                                                             string // of an incident
	Lifted, LiftedBy                                                     string

	About string // what a digest counts
}

const (
	maxText   = 200 // runes of a value
	maxLabel  = 64  // runes of a value that a stranger may have chosen
	maxReason = 500 // runes
)

// take puts the text of a notice's value into v, as w's reader reads it.
type take func(v *values, text string, w *words, m *Mailer) error

// known are the values of notices, by their names. Others are not told.
var known = map[string]take{
	"account":   line(func(v *values) *string { return &v.Account }, maxLabel, true),
	"client":    line(func(v *values) *string { return &v.Client }, maxLabel, true),
	"name":      line(func(v *values) *string { return &v.Name }, maxLabel, true),
	"by":        line(func(v *values) *string { return &v.By }, maxText, true),
	"decision":  line(func(v *values) *string { return &v.Decision }, maxText, false),
	"value":     line(func(v *values) *string { return &v.Value }, maxText, false),
	"rule":      line(func(v *values) *string { return &v.Rule }, maxText, false),
	"reason":    line(func(v *values) *string { return &v.Reason }, maxReason, false),
	"incident":  line(func(v *values) *string { return &v.Incident }, maxText, false),
	"category":  line(func(v *values) *string { return &v.Category }, maxText, false),
	"lifted_by": line(func(v *values) *string { return &v.LiftedBy }, maxText, false),
	"scope":     term(func(v *values) *string { return &v.Scope }),
	"action":    term(func(v *values) *string { return &v.Action }),
	"origin":    term(func(v *values) *string { return &v.Origin }),
	"mode":      term(func(v *values) *string { return &v.Mode }),
	"factor":    term(func(v *values) *string { return &v.Factor }),
	"about":     term(func(v *values) *string { return &v.About }),
	"at":        moment(func(v *values) *string { return &v.At }),
	"until":     moment(func(v *values) *string { return &v.Until }),
	"lifted":    moment(func(v *values) *string { return &v.Lifted }),
	"count":     number,
	"code":      code,
	"country":   country,
	"url":       address,
}

// The values that say how to write, not what.
const (
	valueLanguage = "language"  // BCP 47; "ja" and "en" are written
	valueTimeZone = "time_zone" // IANA
)

func line(field func(*values) *string, most int, strange bool) take {
	return func(v *values, text string, _ *words, _ *Mailer) error {
		text = clean(text, most)
		if strange {
			text = unlinked(text)
		}
		*field(v) = text
		return nil
	}
}

// term is a word of a closed set. One that we have no word for is told as it is.
func term(field func(*values) *string) take {
	return func(v *values, text string, w *words, _ *Mailer) error {
		if said, ok := terms[text]; ok {
			*field(v) = said[w.language]
		} else {
			*field(v) = clean(text, maxLabel)
		}
		return nil
	}
}

func moment(field func(*values) *string) take {
	return func(v *values, text string, w *words, _ *Mailer) error {
		at, err := time.Parse(time.RFC3339, text)
		if err == nil {
			*field(v) = w.moment(at)
		}
		return err
	}
}

func number(v *values, text string, _ *words, _ *Mailer) error {
	n, err := strconv.ParseUint(text, 10, 63)
	if err == nil {
		v.Count = strconv.FormatUint(n, 10)
	}
	return err
}

var codeForm = regexp.MustCompile(`^[0-9A-Z]{2,8}([ -][0-9A-Z]{2,8}){0,6}$`) // seven groups of four are 128 bit and 12 to check

func code(v *values, text string, _ *words, _ *Mailer) error {
	if !codeForm.MatchString(text) {
		return errors.New("want groups of digits and capital letters")
	}
	v.Code = text
	return nil
}

func country(v *values, text string, w *words, _ *Mailer) error {
	region, err := language.ParseRegion(text)
	if err != nil || !region.IsCountry() {
		return errors.New("want a country of ISO 3166")
	}
	v.Place = display.Regions(w.tag).Name(region)
	return nil
}

// address is a link to the gate's own pages: what else would be in a letter of ours
// is not for a notice to say.
func address(v *values, text string, _ *words, m *Mailer) error {
	own := slices.ContainsFunc(m.pages, func(page string) bool { return strings.HasPrefix(text, page+"/.kidoban/") })
	if !own || len(text) > maxLink || strings.ContainsFunc(text, hidden) || strings.ContainsAny(text, " \"<>\\") {
		return errors.New("want an address below the service's /.kidoban/")
	}
	v.URL = text
	return nil
}

// read makes values of what a notice has, for w's reader.
func (m *Mailer) read(n policies.Notice, w *words) (values, error) {
	v := values{Service: m.service, Link: m.link, At: w.moment(n.Created)}
	for _, name := range slices.Sorted(maps.Keys(n.Values)) {
		take, ok := known[name]
		if text := n.Values[name]; ok && text != "" {
			if err := take(&v, text, w, m); err != nil {
				return values{}, fmt.Errorf("the notice's value %q cannot be told", name) // the cause has the value, which may be a code
			}
		}
	}
	return v, nil
}

// moment is t where the reader is, with the zone, for those who travel.
func (w *words) moment(t time.Time) string {
	t = t.In(w.zone)
	if w.language == "ja" {
		day := []rune("日月火水木金土")[t.Weekday()]
		return t.Format("2006年1月2日") + "（" + string(day) + "）" + t.Format("15:04") + "（" + zoneName(t) + "）"
	}
	return t.Format("Monday 2 January 2006, 15:04") + " (" + zoneName(t) + ")"
}

// zoneName is as in "JST, UTC+09:00".
func zoneName(t time.Time) string {
	short, seconds := t.Zone()
	if seconds == 0 && short == "UTC" {
		return "UTC"
	}
	offset := t.Format("UTC-07:00")
	if strings.ContainsAny(short, "+-") || short == "" { // the zone has no name of its own
		return offset
	}
	return short + ", " + offset
}

// zone is the time zone of that name; what is none is UTC.
func zone(name string) *time.Location {
	if name == "Local" || len(name) > 64 {
		return time.UTC
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return time.UTC
	}
	return z
}
