package guard

import (
	"cmp"
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"time"

	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
)

const (
	actMoveIncident = record.Acts + "incident.move"

	entryProposed  = "incident.proposed" // by rules, after it was done
	entryUnclaimed = "incident.closed"   // by the gate, after it was done

	// noticeIncident is that rules proposed an incident. Of one there is one notice to
	// each receiver; what it takes up later is not told.
	noticeIncident = "incident.proposed"

	// proposedMost bounds the subjects of incidents that wait to be written down.
	proposedMost = 1024
)

// proposeLocked sums up what findings propose as incidents.
func (s *findings) proposeLocked(proposals []policies.Proposal) {
	for _, p := range proposals {
		if sum, there := s.proposed[p.IncidentSubject]; there {
			sum.Join(p)
			continue
		}
		if len(s.proposed) >= proposedMost {
			s.unproposed += uint64(p.Count)
			continue
		}
		if s.proposed == nil {
			s.proposed = map[policies.IncidentSubject]*policies.Proposal{}
		}
		s.proposed[p.IncidentSubject] = &p
	}
}

// UnproposedFindings is how many findings proposed incidents that did not come into
// being, because too many are open.
func (c *Core) UnproposedFindings() uint64 {
	c.findings.mu.Lock()
	defer c.findings.mu.Unlock()
	return c.findings.unproposed
}

// takeProposalsLocked takes what is to be written down of incidents. What was found first
// comes first: there may not be room for all.
func (s *findings) takeProposalsLocked() []policies.Proposal {
	var all []policies.Proposal
	for _, p := range s.proposed {
		all = append(all, *p)
	}
	s.proposed = nil
	slices.SortFunc(all, func(a, b policies.Proposal) int {
		return cmp.Or(a.First.Compare(b.First), a.Compare(b.IncidentSubject))
	})
	return all
}

// took does what follows from incidents that took up what was found.
func (c *Core) took(ctx context.Context, taken policies.Taken, now time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTime) // it is kept, whoever goes away
	defer cancel()
	for _, i := range taken.Opened {
		c.Log.Warn("rules propose an incident", "incident", i.ID, "category", i.Category, "key", i.Key, "value", i.Value, "rule", string(i.Rules[0]))
		c.noteIncident(ctx, entryProposed, i)
	}
	if taken.Refused > 0 {
		c.complain("more incidents are proposed than can be open: close some", "findings", taken.Refused)
		c.findings.mu.Lock()
		c.findings.unproposed += uint64(taken.Refused)
		c.findings.mu.Unlock()
	}
	if err := c.Decisions.Relate(ctx, taken.Decisions, now); err != nil {
		c.complain("decisions do not name their incident", "error", err)
	}
}

// noteIncident puts on the record that an incident came into its state without an
// operator.
func (c *Core) noteIncident(ctx context.Context, kind string, i policies.Incident) {
	ctx, cancel := context.WithTimeout(ctx, noting)
	defer cancel()
	if _, err := c.Record.Append(ctx, record.Draft{Time: c.Now(), Kind: kind, Reason: string(policies.ReasonRule), Body: incidentValues(i)}); err != nil {
		c.complain("that an incident is "+string(i.State)+" is not on record", "incident", i.ID, "error", err)
	}
}

// incidentNotices tell subscribers that rules proposed an incident.
func (c *Core) incidentNotices(i policies.Incident) (notices []policies.Notice) {
	c.eachSubscription(noticeIncident, func(s Subscription, channel string, values map[string]string) {
		maps.Copy(values, incidentValues(i))
		to := c.Digest("address", channel+"\x00"+s.To)
		notices = append(notices, policies.Notice{
			Key: policies.IncidentNoticeKey(i.ID, base64.RawURLEncoding.EncodeToString(to[:])), Channel: channel, To: s.To, Template: noticeIncident, Values: values,
		})
	})
	return notices
}

// incidentValues is what is told of an incident as it came into its state.
func incidentValues(i policies.Incident) map[string]string {
	last := i.Changes[len(i.Changes)-1]
	return map[string]string{
		"incident": i.ID, "category": i.Category, "scope": policies.KeyName(i.Key), "value": i.Value, "rule": string(i.Rules[0]), "reason": last.Note, "at": moment(last.At),
	}
}

// ListIncidents is a page of incidents; see [policies.Incidents.List].
func (c *Core) ListIncidents(ctx context.Context, q policies.IncidentQuery) ([]policies.Incident, string, error) {
	c.keepFindings(ctx) // those of this second count
	return c.Incidents.List(ctx, q)
}

// Incident is an incident with what belongs to it; see [policies.Incidents.View].
func (c *Core) Incident(ctx context.Context, id string) (policies.IncidentView, error) {
	c.keepFindings(ctx)
	return c.Incidents.View(ctx, id)
}

// MoveIncident brings an incident into a state in the name of by; see
// [policies.Incidents.Move].
func (c *Core) MoveIncident(ctx context.Context, id string, to policies.IncidentState, note, by string) (i policies.Incident, err error) {
	if err := policies.CheckMove(to, note); err != nil {
		return i, err
	}
	body := map[string]string{"incident": id, "state": string(to), "note": note, "by": by}
	err = c.act(ctx, actMoveIncident, body, true, func(ctx context.Context, entry string, at time.Time) error {
		i, err = c.Incidents.Move(ctx, id, to, note, policies.Act{By: by, Entry: entry}, at)
		return err
	})
	if err == nil {
		c.operated(ctx, actMoveIncident, by, "")
	}
	return i, err
}

// purgeIncidents closes incidents that nobody declared, and deletes old ones.
func (c *Core) purgeIncidents(ctx context.Context, now time.Time) error {
	closed, err := c.Incidents.Purge(ctx, now)
	for _, i := range closed {
		c.Log.Info("nobody declared an incident, and nothing was found of it for seven days: it is closed", "incident", i.ID)
		c.noteIncident(ctx, entryUnclaimed, i)
	}
	return err
}
