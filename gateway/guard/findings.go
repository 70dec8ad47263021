package guard

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const (
	// keeping is how often what rules found is written down. What was found since is lost
	// with the process.
	keeping = time.Second
	// pendingMost bounds what waits to be written down, of each kind.
	pendingMost = 4096
	// findingsRate is how many findings of a rule a second are kept with all there is to
	// say, beside those that a decision or a code leads to; findingsBurst of them at once.
	findingsRate, findingsBurst = 5, 200
	// purging is how often old findings are deleted.
	purging = 10 * time.Minute
)

// findings is what rules found and is not written down yet.
type findings struct {
	mu         sync.Mutex // guards all below
	found      []sighting
	references []policies.Reference
	hits       map[hitKey]rules.Hit
	proofs     []detectors.Event
	unkept     uint64 // since the start; there were too many
	proposed   map[policies.IncidentSubject]*policies.Proposal
	unproposed uint64 // since the start; there were too many incidents
	allowed    map[rules.ID]allowance

	writing sync.Mutex    // held while it is written down; guards all below
	failed  policies.Kept // what could not be, for the next time
	spent   map[rules.ID]bool
	purged  time.Time
}

// sighting is a finding with what is needed to explain it.
type sighting struct {
	rules.Finding
	stage rules.Stage
	event detectors.Event
	set   *rules.Set
	fall  rules.Fall
}

type hitKey struct {
	rule       rules.ID
	generation string
	account    detectors.Account
}

// allowance is how many findings of a rule may still be kept.
type allowance struct {
	left float64
	at   time.Time
}

// evaluate asks the rules of a stage, as far as they have not fallen, puts what can be
// done in the place of what cannot, and notes what they found. Each finding has an id.
func (c *Core) evaluate(stage rules.Stage, e detectors.Event, signals []detectors.Signal, m means) []rules.Finding {
	set := c.Rules.Load()
	found := set.Evaluate(stage, e, signals)
	if len(found) == 0 {
		return nil
	}
	seen := make([]sighting, len(found))
	for i, f := range found {
		fall := c.fallOf(f.Rule, f.Generation)
		f = c.feasible(f.Under(fall), signals, m)
		f.ID = policies.NewFindingID(e.Time)
		found[i], seen[i] = f, sighting{f, stage, e, set, fall}
	}
	c.findings.note(seen)
	return found
}

// foresee is evaluate for what has not happened yet: nothing is noted.
func (c *Core) foresee(stage rules.Stage, e detectors.Event, signals []detectors.Signal, m means) []rules.Finding {
	found := c.Rules.Load().Evaluate(stage, e, signals)
	for i, f := range found {
		found[i] = c.feasible(f.Under(c.fallOf(f.Rule, f.Generation)), signals, m)
	}
	return found
}

func (s *findings) note(seen []sighting) {
	var proposals []policies.Proposal
	for _, f := range seen {
		proposals = append(proposals, policies.ProposalsOf(f.Finding, f.event)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proposeLocked(proposals)
	for _, f := range seen {
		s.hitLocked(rules.NewHit(f.Rule, f.Generation, f.event))
		if len(s.found) >= pendingMost {
			s.unkept++
			continue
		}
		s.found = append(s.found, f)
	}
}

func (s *findings) hitLocked(h rules.Hit) {
	if !h.Counts() {
		return
	}
	key := hitKey{h.Rule, h.Generation, h.Account}
	if s.hits == nil {
		s.hits = map[hitKey]rules.Hit{}
	}
	if first, there := s.hits[key]; there && !first.SameClient(h) {
		return
	}
	if len(s.hits) < pendingMost {
		s.hits[key] = h
	}
}

// touched notes that a decision of a rule met an account, which counts as a match of
// the rule does.
func (c *Core) touched(x policies.Verdict, e detectors.Event) {
	if x.Decision == "" || x.Rule == "" || e.Account == "" {
		return
	}
	r, ok := c.Rules.Load().Rule(x.Rule)
	if !ok {
		return // whoever made the decision is gone
	}
	c.findings.mu.Lock()
	defer c.findings.mu.Unlock()
	c.findings.hitLocked(rules.NewHit(r.ID, r.Generation, e))
}

// refer notes what leads to a finding.
func (c *Core) refer(r policies.Reference) {
	if r.Rule == "" || r.Name == "" {
		return
	}
	s := &c.findings
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.references) >= pendingMost {
		s.unkept++
		return
	}
	s.references = append(s.references, r)
}

// proves takes in what may prove that somebody whom a rule hit did nothing wrong.
func (c *Core) proves(e detectors.Event) {
	if !rules.Proves(e) {
		return
	}
	s := &c.findings
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.proofs) < pendingMost {
		s.proofs = append(s.proofs, e)
	}
}

// UnkeptFindings is how many findings and references were too many to be kept.
func (c *Core) UnkeptFindings() uint64 {
	c.findings.mu.Lock()
	defer c.findings.mu.Unlock()
	return c.findings.unkept
}

// take takes what is to be written down.
func (s *findings) take(now time.Time) (seen []sighting, references []policies.Reference, hits []rules.Hit, proofs []detectors.Event, proposals []policies.Proposal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := make(map[string]bool, len(s.references))
	for _, r := range s.references {
		named[r.Finding] = true
	}
	if s.allowed == nil {
		s.allowed = map[rules.ID]allowance{}
	}
	for _, f := range s.found {
		a, known := s.allowed[f.Rule]
		if !known {
			a = allowance{findingsBurst, now}
		}
		if now.After(a.at) {
			a.left, a.at = min(findingsBurst, a.left+findingsRate*now.Sub(a.at).Seconds()), now
		}
		switch {
		case named[f.ID]:
			seen = append(seen, f)
		case a.left >= 1:
			a.left--
			seen = append(seen, f)
		default:
			s.unkept++
		}
		s.allowed[f.Rule] = a
	}
	references, hits, proofs = s.references, slices.Collect(maps.Values(s.hits)), s.proofs
	s.found, s.references, s.proofs = nil, nil, nil
	clear(s.hits)
	return seen, references, hits, proofs, s.takeProposalsLocked()
}

// keepFindings writes down what rules found, explained, and what proved benign.
func (c *Core) keepFindings(ctx context.Context) {
	s := &c.findings
	s.writing.Lock()
	defer s.writing.Unlock()
	now := c.Now()
	if !s.failed.Empty() {
		if err := c.keep(ctx, s.failed, now); err != nil {
			return
		}
		s.failed = policies.Kept{}
	}
	seen, references, hits, proofs, proposals := s.take(now)
	if c.room != nil && len(seen) > 0 && !c.room() {
		c.complain("what rules found is not kept", "error", "the disk is nearly full")
		s.mu.Lock()
		s.unkept += uint64(len(seen) + len(references))
		s.mu.Unlock()
		seen, references = nil, nil
	}
	k := policies.Kept{References: references, Over: map[rules.ID]time.Duration{}, Proposals: proposals, Tell: c.incidentNotices}
	for _, f := range seen {
		k.Findings = append(k.Findings, c.explained(ctx, f))
	}
	for _, h := range hits {
		h.Organization = detectors.Organization(cmp.Or(string(h.Organization), c.organizationOf(ctx, h.Account)))
		k.Hits = append(k.Hits, h)
		if r, ok := c.Rules.Load().Rule(h.Rule); ok && r.Budget != nil {
			k.Over[h.Rule] = r.Budget.Over
		}
	}
	if err := c.keep(ctx, k, now); err != nil {
		s.failed = k
		return // what proves the hits comes again, at the next log-in
	}
	proved, err := c.Findings.Prove(ctx, proofs)
	if err != nil {
		c.complain("what proves to be no attack is not kept", "error", err)
	}
	for rule := range proved {
		s.spentLocked(rule)
	}
}

// keep writes k down, and does what follows from it.
func (c *Core) keep(ctx context.Context, k policies.Kept, now time.Time) error {
	taken, err := c.Findings.Keep(ctx, k, now)
	if err != nil {
		c.complain("what rules found is not kept", "error", err)
		return err
	}
	c.took(ctx, taken, now)
	return nil
}

// spentLocked notes that the budget of a rule is to be looked at. Expects writing.
func (s *findings) spentLocked(rule rules.ID) {
	if s.spent == nil {
		s.spent = map[rules.ID]bool{}
	}
	s.spent[rule] = true
}

// explained is a finding as it is kept.
func (c *Core) explained(ctx context.Context, f sighting) policies.Found {
	x := policies.Found{Finding: f.Finding, Stage: f.stage, Account: string(f.event.Account), Organization: string(f.event.Organization), Fall: f.fall}
	if f.event.Source.Address.IsValid() {
		x.Source = f.event.Source.Address.String()
	}
	x.Organization = cmp.Or(x.Organization, c.organizationOf(ctx, f.event.Account))
	why, err := f.set.Explain(f.Finding, f.event)
	if err != nil {
		c.complain("a finding is kept without what decided", "error", err)
	}
	x.Explanation = why
	for _, p := range policies.ProposalsOf(f.Finding, f.event) {
		x.Proposes = append(x.Proposes, p.IncidentSubject)
	}
	if r, ok := f.set.Rule(f.Rule); ok && r.Generation == f.Generation {
		x.Text = r.Text
	}
	return x
}

// organizationOf is the organization of an account, as far as it is known.
func (c *Core) organizationOf(ctx context.Context, account detectors.Account) string {
	if account == "" {
		return ""
	}
	person, _, err := c.Directory.BySubject(ctx, string(account))
	if err != nil {
		c.complain("directory", "error", err)
	}
	return person.Organization
}

// sweepFindings looks at budgets, and deletes what is old.
func (c *Core) sweepFindings(ctx context.Context, now time.Time) error {
	if c.Rules.Load() == nil {
		return nil // not read yet
	}
	c.keepFindings(ctx)
	c.judgeBudgets(ctx, now)
	s := &c.findings
	s.writing.Lock()
	defer s.writing.Unlock()
	if now.Sub(s.purged) < purging {
		return nil
	}
	s.purged = now
	return errors.Join(c.Findings.Purge(ctx, c.Rules.Load().Rules(), now), c.purgeIncidents(ctx, now))
}
