package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
)

// Log-ins come from logs of all sorts, of which this package makes what it can. Lines of
// other kinds are written for it: they are read strictly. A field that their kind has not,
// or a value that is none, is a fault of the line, which says the field.

// otherKinds are what events may be besides log-ins.
var otherKinds = []detectors.Kind{detectors.Door, detectors.Session, detectors.Request, detectors.Factor, detectors.Message, detectors.Operator}

// classes are the routes that events may be of, besides log-ins.
var classes = []detectors.RouteClass{
	detectors.LoginRoute, detectors.Logout, detectors.Signup, detectors.Reset, detectors.ChangePassword, detectors.ChangeEmail, detectors.TokenMint,
	detectors.Invite, detectors.Identify, detectors.Public, detectors.Sensitive, detectors.MessageRoute,
}

// acts are what may become of a session.
var acts = []detectors.Act{detectors.Begun, detectors.Minted, detectors.Ended}

// actors of the operators' API have this before their names, as at the gate.
const operators = "operator:"

const maxTargets = 1 << 20

// kindOf is the kind of a line, that of a log-in unless it is said.
func kindOf(values map[string]json.RawMessage) (detectors.Kind, error) {
	v := values["kind"]
	if absent(v) {
		return detectors.Login, nil
	}
	s, err := scalar(v)
	if err != nil {
		return "", fmt.Errorf("kind %.80s: %w", v, err)
	}
	return detectors.Kind(s), nil
}

// strict finds what a line of kind has that is no field of the kind.
func strict(kind detectors.Kind, values map[string]json.RawMessage) error {
	if !slices.Contains(otherKinds, kind) {
		return fmt.Errorf("kind %.80q: want one of %s, %s", kind, detectors.Login, joined(otherKinds))
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if absent(values[name]) || slices.ContainsFunc(fields, func(f field) bool { return f.has(kind) && slices.Contains(f.names, name) }) {
			continue
		}
		var known []string
		for _, f := range fields {
			if f.has(kind) {
				known = append(known, f.names[0])
			}
		}
		return fmt.Errorf("%.80s: no field of kind %s: want one of %s", name, kind, strings.Join(known, ", "))
	}
	return nil
}

// whole finds what an event of kind cannot do without.
func whole(a *Attempt) error {
	e := &a.Event
	switch {
	case e.Kind == detectors.Request && !slices.Contains(policies.CountedClasses(), e.Route):
		return fmt.Errorf("route %q: want one of %s, of kind request", e.Route, joined(policies.CountedClasses()))
	case e.Kind == detectors.Message && e.Route != "" && e.Route != detectors.MessageRoute:
		return fmt.Errorf("route %q: want message, of kind message", e.Route)
	case e.Kind == detectors.Session && e.Act != "" && !slices.Contains(acts, e.Act):
		return fmt.Errorf("act %q: want one of %s, of kind session", e.Act, joined(acts))
	case e.Kind == detectors.Operator && e.Act == "":
		return errors.New("act: missing: want what was done, such as decision.lift, of kind operator")
	case e.Kind == detectors.Operator && e.Actor == "":
		return errors.New("actor: missing: want who did it, of kind operator")
	}
	return nil
}

func joined[T ~string](all []T) string {
	words := make([]string, len(all))
	for i, v := range all {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}

func absent(v json.RawMessage) bool { return len(v) == 0 || string(v) == "null" || string(v) == `""` }

func readClass(v json.RawMessage, a *Attempt) error {
	s, err := scalar(v)
	if err != nil {
		return err
	}
	if a.Event.Route = detectors.RouteClass(s); !slices.Contains(classes, a.Event.Route) {
		return fmt.Errorf("want one of %s", joined(classes))
	}
	return nil
}

func readActor(v json.RawMessage, a *Attempt, _ *Reader) error {
	s, err := scalar(v)
	if a.Event.Kind == detectors.Operator {
		s = operators + strings.TrimPrefix(s, operators)
	}
	a.Event.Actor = bounded(s)
	return err
}

// readCount reads a whole number from 0.
func readCount(most int64, set func(*detectors.Event, int64)) func(json.RawMessage, *Attempt, *Reader) error {
	return func(v json.RawMessage, a *Attempt, _ *Reader) error {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil || n < 0 || n > most {
			return fmt.Errorf("want a whole number from 0 to %d", most)
		}
		set(&a.Event, n)
		return nil
	}
}

var (
	readSize    = readCount(math.MaxInt64, func(e *detectors.Event, n int64) { e.Size = n })
	readTargets = readCount(maxTargets, func(e *detectors.Event, n int64) { e.Targets = int(n) })
)
