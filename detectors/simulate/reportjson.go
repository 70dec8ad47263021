package simulate

import (
	"cmp"
	"encoding/json"
	"io"
	"math"
	"time"
)

// The JSON form of a report; README.md describes it.
type (
	reportJSON struct {
		Format        int          `json:"format"`
		Made          time.Time    `json:"made,omitzero"`
		ScenarioFiles string       `json:"scenario_files"`
		RulePack      string       `json:"rule_pack"`
		Seeds         []uint64     `json:"seeds"`
		Spread        float64      `json:"spread"`
		Scale         float64      `json:"scale"`
		Defense       string       `json:"defense"`
		Met           int          `json:"met"`
		Missed        int          `json:"missed"`
		NotRun        int          `json:"not_run"`
		Targets       []judgedJSON `json:"targets"`
		Figures       []figureJSON `json:"figures"`
		Beaten        []beatenJSON `json:"beaten"`
		Results       []Result     `json:"results"`

		Thresholds *thresholdsJSON `json:"thresholds"`
	}
	judgedJSON struct {
		Target
		Unit      Unit    `json:"unit"`
		Direction string  `json:"direction"` // at_most or at_least
		Text      string  `json:"text"`
		Verdict   Verdict `json:"verdict"`
		Where     string  `json:"where,omitempty"`
		*joinedJSON
	}
	joinedJSON struct {
		Worst  *float64 `json:"worst"`
		Seed   uint64   `json:"worst_seed,omitempty"`
		Of     int      `json:"of,omitempty"`
		Among  int      `json:"among,omitempty"`
		Median *float64 `json:"median"`
		Best   *float64 `json:"best"`
	}
	figureJSON struct {
		Scenario string `json:"scenario"`
		Form     string `json:"form"`
		Drawn    bool   `json:"drawn"`
		Defense  string `json:"defense"`
		Metric   Metric `json:"metric"`
		Unit     Unit   `json:"unit"`
		Better   Better `json:"better"`
		joinedJSON
	}
	beatenJSON struct {
		Scenario string   `json:"scenario"`
		Form     string   `json:"form"`
		Metric   Metric   `json:"metric"`
		By       string   `json:"by"`
		Ours     *float64 `json:"ours"`
		Theirs   *float64 `json:"theirs"`
		Why      string   `json:"why"`
	}
)

// WriteJSON writes r as one JSON object, indented, with every result.
func (r *Report) WriteJSON(out io.Writer) error {
	g := r.read()
	judged := g.Judge()
	j := reportJSON{
		Format: 1, Made: r.Made, ScenarioFiles: r.Scenarios, RulePack: r.Rules, Seeds: r.Seeds, Spread: r.Spread, Scale: cmp.Or(r.Scale, 1), Defense: r.Defense,
		Targets: []judgedJSON{}, Figures: []figureJSON{}, Beaten: []beatenJSON{}, Results: r.Results,
		Thresholds: r.Thresholds.json(),
	}
	j.Met, j.Missed, j.NotRun = tally(judged)
	if j.Seeds == nil {
		j.Seeds = []uint64{}
	}
	if j.Results == nil {
		j.Results = []Result{}
	}
	for _, t := range judged {
		m := measures[t.Metric]
		direction := "at_most"
		if m.better == Higher {
			direction = "at_least"
		}
		row := judgedJSON{Target: t.Target, Unit: m.unit, Direction: direction, Verdict: t.Verdict, Where: t.Where,
			Text: t.Scenario + ": " + english.metric(t.Metric) + " " + english.both(t.Target)}
		if t.Verdict != NotRun {
			joined := joinedOf(t.Joined)
			row.joinedJSON = &joined
		}
		j.Targets = append(j.Targets, row)
	}
	for _, v := range g.variants {
		for _, m := range metricOrder {
			if joined, ok := g.figure(v, m); ok && g.shown(v.Scenario, m) {
				j.Figures = append(j.Figures, figureJSON{v.Scenario, v.Form, v.Drawn, v.Defense, m, measures[m].unit, measures[m].better, joinedOf(joined)})
			}
		}
	}
	for _, b := range g.beaten() {
		j.Beaten = append(j.Beaten, beatenJSON{b.Scenario, b.Form, b.Metric, b.By, finite(b.Ours.Worst.Value), finite(b.Theirs.Worst.Value), english.because(b)})
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(j)
}

func joinedOf(j Joined) joinedJSON {
	return joinedJSON{finite(j.Worst.Value), j.Seed, j.Worst.Of, j.Worst.Among, finite(j.Median), finite(j.Best)}
}

// finite is nil for what is unbounded: JSON has no word for it.
func finite(v float64) *float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil
	}
	return &v
}
