package gateway

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/geo"
	"github.com/kidoban/kidoban/gateway/stream"
)

// asking bounds how long a database that does not answer keeps who asks how the gate
// is; probes wait for a few seconds.
const asking = 2 * time.Second

// parts tells operators how the parts of the gate are.
func (rt *runtime) parts(ctx context.Context) []api.PartHealth {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	database := api.PartHealth{Name: "database", Status: api.OK, Essential: true}
	if err := rt.db.Reads().PingContext(ctx); err != nil {
		database.Status, database.Detail = api.Down, "it does not answer; the log has the cause"
	} else if rt.core.Unwritable() {
		// Who is in stays in: the gate serves, so this is not essential.
		database.Status, database.Essential = api.Down, false
		database.Detail = "it takes no changes, so log-ins and operators' acts are refused; see whether its disk is full; the log has the cause"
	} else if rt.core.Behind() {
		database.Status, database.Detail = api.Degraded, "what other nodes changed cannot be taken over; the log has the cause"
	}
	hooks := api.PartHealth{Name: "outbox", Status: api.OK}
	for _, f := range rt.hooks.Status().Failing {
		who := "webhook " + f.To
		if f.Channel != "" {
			who = "the server for " + f.Channel
		}
		hooks.Status, hooks.Detail = api.Degraded, who+" does not take notices: "+f.Why
	}
	keys := api.PartHealth{Name: "keys", Status: api.OK}
	memory := api.PartHealth{Name: "detectors", Status: api.OK}
	rt.upkeep.mu.Lock()
	if rt.upkeep.unread != nil {
		keys.Status, keys.Detail = api.Degraded, "keys.json changed and cannot be read: the keys known before stay in use; the log has the cause"
	}
	if rt.upkeep.unwritten != nil {
		memory.Status, memory.Detail = api.Degraded, "what they know cannot be written down: "+rt.upkeep.unwritten.Error()
	}
	rt.upkeep.mu.Unlock()
	all := append(append([]api.PartHealth{database}, rt.recordHealth()...), append(rt.streamHealth(), hooks, keys, memory, rt.rulesHealth(rt.core.Now()))...)
	return append(append(all, rt.breachedHealth()...), rt.geoHealth(rt.core.Now())...)
}

// rulesHealth tells of rules that fell, and of nodes with other rules.
func (rt *runtime) rulesHealth(now time.Time) api.PartHealth {
	part := api.PartHealth{Name: "rules", Status: api.OK}
	var say []string
	if since, nodes := rt.core.Disagreement(now); len(nodes) > 0 {
		say = append(say, fmt.Sprintf("since %s other rules are in force on %s: give all nodes the same files", since.UTC().Format(time.RFC3339), strings.Join(nodes, ", ")))
	}
	for _, x := range rt.core.Falls() {
		say = append(say, fmt.Sprintf("%s spent its budget of false positives and fell to %s: mend it, or restore it", x.Rule, x.Level))
	}
	if len(say) > 0 {
		part.Status, part.Detail = api.Degraded, strings.Join(say[:min(len(say), 10)], "; ")
	}
	return part
}

// stale is the age from which a list of breached passwords misses what is in use: the
// published ones grow each month.
const stale = 365 * 24 * time.Hour

// breachedHealth is about what is configured, if anything.
func (rt *runtime) breachedHealth() []api.PartHealth {
	s := rt.breached.Status()
	if !s.Named && !s.Asks {
		return nil
	}
	known := api.PartHealth{Name: "breached", Status: api.OK}
	var say []string
	if !s.Date.IsZero() {
		age := rt.core.Now().Sub(s.Date)
		say = append(say, fmt.Sprintf("the list has %d passwords and is of %s, %d days ago", s.Keys, s.Date.Format(time.DateOnly), max(age, 0)/(24*time.Hour)))
		if age > stale {
			known.Status = api.Degraded
			say = append(say, "it misses what was stolen since: make it anew")
		}
	}
	if s.Fault != nil {
		known.Status = api.Degraded
		say = append(say, "what is there now cannot be used: "+s.Fault.Error())
	}
	if s.Asked.Open {
		known.Status = api.Degraded
		say = append(say, fmt.Sprintf("the range API is left alone since %s, and what it knows counts as not breached: %s", s.Asked.Since.UTC().Format(time.RFC3339), s.Asked.Why))
	}
	known.Detail = strings.Join(say, "; ")
	return []api.PartHealth{known}
}

// geoHealth has one part, or none where there are no geo files. Its lag is the age of
// the oldest.
func (rt *runtime) geoHealth(now time.Time) []api.PartHealth {
	files := rt.places.Status()
	if len(files) == 0 {
		return nil
	}
	places := api.PartHealth{Name: "geo", Status: api.OK}
	var ages, troubles []string
	for _, f := range files {
		name := filepath.Base(f.Path)
		if f.Kind != "" {
			age := max(0, now.Sub(f.Built))
			if places.LagSeconds == nil || *places.LagSeconds < age.Seconds() {
				places.LagSeconds = new(age.Seconds())
			}
			ages = append(ages, fmt.Sprintf("%s is of %s", name, f.Built.UTC().Format(time.DateOnly)))
			if age > geo.Stale {
				troubles = append(troubles, fmt.Sprintf("%s is %d days old: replace it with a new one", name, int(age.Hours()/24)))
			}
		}
		switch {
		case f.Fault != nil:
			troubles = append(troubles, f.Fault.Error())
		case f.Broken:
			troubles = append(troubles, name+" is damaged: addresses in it are unknown; replace it")
		}
	}
	places.Detail = strings.Join(ages, "; ")
	if len(troubles) > 0 {
		places.Status, places.Detail = api.Degraded, strings.Join(troubles, "; ")
	}
	return []api.PartHealth{places}
}

// geoAges is the age of the oldest geo file in force of each kind.
func (rt *runtime) geoAges(now time.Time) map[string]time.Duration {
	ages := make(map[string]time.Duration)
	for _, f := range rt.places.Status() {
		if f.Kind != "" {
			ages[f.Kind] = max(ages[f.Kind], now.Sub(f.Built))
		}
	}
	return ages
}

func (rt *runtime) recordHealth() []api.PartHealth {
	s := rt.record.Status()
	paper := api.PartHealth{Name: "record", Status: api.OK}
	switch {
	case !s.Since.IsZero():
		paper.Status = api.Down
		paper.Detail = fmt.Sprintf("nothing can be written since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Why)
		if rt.core.RecordOptional.Load() {
			paper.Detail += "; log-ins and operators' acts go on without it (record_optional)"
		} else {
			paper.Detail += "; log-ins and operators' acts are refused until it can"
		}
	case s.Full || s.ReserveOut:
		paper.Status, paper.Detail = api.Degraded, fmt.Sprintf("the disk is full and the reserve for log-ins and acts is in use: %d MiB are free; make room", s.Free>>20)
	}
	if s.Mirror == nil {
		return []api.PartHealth{paper}
	}
	mirror := api.PartHealth{Name: "mirror", Status: api.OK, LagSeconds: new(s.Mirror.Age.Seconds())}
	if !s.Mirror.Since.IsZero() {
		mirror.Status = api.Degraded
		mirror.Detail = fmt.Sprintf("%d entries of the record are on this node alone: %s", s.Mirror.Entries, s.Mirror.Why)
	}
	return []api.PartHealth{paper, mirror}
}

func (rt *runtime) streamHealth() []api.PartHealth {
	s := rt.stream.Status()
	events := api.PartHealth{Name: "stream", Status: api.OK, Nodes: s.Nodes}
	switch {
	case s.Degraded:
		events.Status = api.Degraded
		events.Detail = fmt.Sprintf("this node is alone with its events since %s: %s; %d wait to be sent", s.DegradedSince.UTC().Format(time.RFC3339), s.Reason, s.Spooled)
	case s.Conflict:
		events.Status, events.Detail = api.Degraded, "another process uses the name of this node: give each node a name of its own (option node)"
	case s.Journal.Error != "":
		events.Status, events.Detail = api.Degraded, "events are kept in memory only: "+s.Journal.Error
	case s.GapsOpen > 0:
		events.Detail = fmt.Sprintf("%d events of other nodes are being fetched", s.GapsOpen)
	}
	if rt.limits == nil {
		return []api.PartHealth{events}
	}
	events.LagSeconds = new(behind(s).Seconds())
	counting := api.PartHealth{Name: "limits", Status: api.OK}
	if st := rt.limits.Status(); st.Open {
		counting.Status = api.Degraded
		counting.Detail = fmt.Sprintf("Redis is not asked since %s; this node lets through its share of each limit", st.Since.UTC().Format(time.RFC3339))
	}
	return []api.PartHealth{events, counting}
}

// behind is how far this node is behind with the events of the others.
func behind(s stream.Status) (lag time.Duration) {
	for _, p := range s.Peers {
		if p.Alive {
			lag = max(lag, p.Lag)
		}
	}
	return lag
}
