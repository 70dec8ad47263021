package gateway

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Collectors live as long as the process; each configuration registers them in
// its own registry. Their labels come from closed sets, never from a client.
var (
	verdicts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kidoban", Name: "verdicts_total",
		Help: "Verdicts stricter than allow, by control, action and reason. observed: it was not acted on.",
	}, []string{"control", "action", "reason", "observed"})
	logins = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kidoban", Name: "logins_total", Help: "Login attempts by outcome; one per typed name.",
	}, []string{"outcome"})
	factors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kidoban", Name: "factors_total", Help: "Second factors that were given, by outcome.",
	}, []string{"outcome"})
	drifting = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "kidoban", Name: "backend_drifting", Help: "1 while a backend's answers to log-ins do not fit its preset.",
	}, []string{"backend"})
)

// gauges tells how the gate that runs is, the latest of several. It asks when it is
// asked.
type gauges struct {
	mu sync.Mutex
	of []*runtime // guarded by mu
}

func (g *gauges) add(rt *runtime) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of = append(g.of, rt)
}

func (g *gauges) remove(rt *runtime) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of = slices.DeleteFunc(g.of, func(other *runtime) bool { return other == rt })
}

func (g *gauges) latest() *runtime {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.of) == 0 {
		return nil
	}
	return g.of[len(g.of)-1]
}

// running are the gauges of this process.
var running gauges

func described(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kidoban_"+name, help, labels, nil)
}

var (
	partDegraded = described("part_degraded", "1 while a part of the gate is degraded or down; its detail is in /v1/health.", "part")
	partDown     = described("part_down", "1 while a part of the gate does not work.", "part")
	filesLeftOut = described("faults", "Rule, policy, preset and geo files that were left out, and cautions.")
	nodesAlive   = described("nodes", "Nodes that this one knows to be alive, itself included.")
	actsOpen     = described("acts_open", "Log-ins and operators' acts that are under way or in doubt.")
	remembered   = described("snapshot_timestamp_seconds", "When what the detectors know was written down last, since the start.")
	recordBytes  = described("record_bytes", "Bytes of the record's files.")
	recordOwed   = described("record_unwritten_denials", "Denials that are counted and in no entry of the record yet.")
	mirrorLag    = described("mirror_lag_seconds", "Age of the oldest entry of the record that the database does not have.")
	mirrorOwed   = described("mirror_waiting_entries", "Entries of the record that the database does not have.")
	streamLag    = described("stream_lag_seconds", "How far this node is behind with the events of others.")
	streamOwed   = described("stream_waiting_events", "Own events that Redis has not taken.")
	streamLost   = described("stream_lost_events", "Events of other nodes that no node has any more. It falls where they come all the same.")
	streamUnsent = described("stream_unsent_events_total", "Own events that were gone before Redis took them.")
	geoAge       = described("geo_age_seconds", "Age of the oldest geo file in force, since it was published.", "kind")
	alarmsOn     = described("campaign_alarms", "Campaign alarms that are on: more log-ins fail than is normal. Operators and organizations are counted together.", "stratum")
	rulesInForce = described("rules_info", "1 for the rules in force; hash is the same on nodes with the same rules.", "hash")
	rulesFallen  = described("rule_fallen", "How far a rule fell that spent its budget of false positives: 1 to step_up, 2 to shadow. Rules that stand are not listed.", "rule")
	rulesApart   = described("rules_disagree", "1 while nodes have different rules for more than a minute.")
	rulesBytes   = described("rules_memory_bytes", "What the counters of rules take of memory.")
	rulesRoom    = described("rules_memory_limit_bytes", "What the counters of rules may take of memory.")
	rulesKeys    = described("rules_keys", "Of how many sources, names, accounts and so on the counters of rules know something.")
	rulesWide    = described("rules_keys_widened", "Of these, wider ones that stand for several sources because there was no room.")
	rulesForgot  = described("rules_keys_forgotten", "Keys that the counters in force forgot before their time was over, for want of room. It falls where rules go.")
	rulesLate    = described("rules_events_late", "Events that came too late for a counter in force. It falls where rules go.")
	rulesExempt  = described("rule_exempted", "Matches that the exemptions of a rule kept from being findings, since the start. It falls where exemptions go.", "rule")
	foundUnkept  = described("findings_unkept_total", "Findings of rules, and codes that lead to them, that were too many to be kept one by one.")
	unproposed   = described("findings_without_incident_total", "Findings whose incident did not come into being, because too many are open.")
	noticesSent  = described("notices_sent_total", "Notices that webhooks took.")
	noticesGone  = described("notices_given_up_total", "Notices that no webhook took in time, or that one refused.")
)

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		partDegraded, partDown, filesLeftOut, nodesAlive, actsOpen, remembered, recordBytes, recordOwed, mirrorLag, mirrorOwed,
		streamLag, streamOwed, streamLost, streamUnsent, geoAge, alarmsOn, rulesInForce, rulesFallen, rulesApart,
		rulesBytes, rulesRoom, rulesKeys, rulesWide, rulesForgot, rulesLate, rulesExempt, foundUnkept, unproposed, noticesSent, noticesGone,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	rt := g.latest()
	if rt == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	truth := map[bool]float64{true: 1}
	for _, p := range rt.parts(context.Background()) {
		gauge(partDegraded, truth[p.Status != api.OK], p.Name)
		gauge(partDown, truth[p.Status == api.Down], p.Name)
	}
	gauge(filesLeftOut, float64(len(rt.faulty())))
	gauge(actsOpen, float64(rt.core.OpenActs()))
	rt.upkeep.mu.Lock()
	at := rt.upkeep.written
	rt.upkeep.mu.Unlock()
	if !at.IsZero() {
		gauge(remembered, float64(at.Unix()))
	}
	paper := rt.record.Status()
	gauge(recordBytes, float64(paper.Bytes))
	gauge(recordOwed, float64(paper.Counted))
	if paper.Mirror != nil {
		gauge(mirrorLag, paper.Mirror.Age.Seconds())
		gauge(mirrorOwed, float64(paper.Mirror.Entries))
	}
	events := rt.stream.Status()
	gauge(nodesAlive, float64(events.Nodes))
	gauge(streamLag, behind(events).Seconds())
	gauge(streamOwed, float64(events.Spooled))
	gauge(streamLost, float64(events.Lost))
	counter(streamUnsent, float64(events.Unsent))
	for kind, age := range rt.geoAges(rt.core.Now()) {
		gauge(geoAge, age.Seconds(), kind)
	}
	alarms := map[string]float64{"all": 0, "untrusted": 0, "strangers": 0, "operator": 0, "organization": 0}
	for _, a := range rt.core.Detectors.Alarms(rt.core.Now()) {
		kind, _, _ := strings.Cut(a.Stratum, ":")
		alarms[kind]++
	}
	for kind, n := range alarms {
		gauge(alarmsOn, n, kind)
	}
	gauge(rulesInForce, 1, rt.core.RulesHash())
	for _, x := range rt.core.Falls() {
		gauge(rulesFallen, float64(x.Level), string(x.Rule))
	}
	_, apart := rt.core.Disagreement(rt.core.Now())
	gauge(rulesApart, truth[len(apart) > 0])
	g.collectRules(rt.core.Rules.Load(), gauge)
	counter(foundUnkept, float64(rt.core.UnkeptFindings()))
	counter(unproposed, float64(rt.core.UnproposedFindings()))
	notices := rt.hooks.Status()
	counter(noticesSent, float64(notices.Sent))
	counter(noticesGone, float64(notices.GivenUp))
}

// collectRules tells what the counters of a set take, and what its exemptions did.
func (*gauges) collectRules(set *rules.Set, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	m := set.Memory()
	keys, widened, forgotten, late := 0, 0, uint64(0), uint64(0)
	for _, u := range m.Counters {
		keys, widened, forgotten, late = keys+u.Keys, widened+u.Widened, forgotten+u.Forgotten, late+u.Late
	}
	gauge(rulesBytes, float64(m.Bytes))
	gauge(rulesRoom, float64(m.Limit))
	gauge(rulesKeys, float64(keys))
	gauge(rulesWide, float64(widened))
	gauge(rulesForgot, float64(forgotten))
	gauge(rulesLate, float64(late))
	exempted := map[rules.ID]uint64{}
	for _, x := range set.Exempted() {
		exempted[x.Rule] += x.Matches
	}
	for rule, n := range exempted {
		gauge(rulesExempt, float64(n), string(rule))
	}
}

// registerMetrics registers the collectors with one configuration.
func registerMetrics(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{verdicts, logins, factors, drifting, &running} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

func countVerdict(c guard.Control, a rules.Action, reason policies.Reason, observed bool) {
	verdicts.WithLabelValues(string(c), a.String(), string(reason), strconv.FormatBool(observed)).Inc()
}

func countDrift(backend string, change policies.DriftChange) {
	value := 0.0
	if change.Drifting {
		value = 1
	}
	drifting.WithLabelValues(backend).Set(value)
}

func countLogin(e detectors.Event) {
	if (e.Kind == detectors.Login || e.Kind == detectors.Door) && !e.Unproven { // that one is counted when it is proven
		logins.WithLabelValues(string(e.Outcome)).Inc()
	}
	if e.Kind == detectors.Factor {
		factors.WithLabelValues(string(e.Outcome)).Inc()
	}
}
