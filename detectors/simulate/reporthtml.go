package simulate

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"time"
)

//go:embed report.html
var pageText string

//go:embed report.css
var pageStyle string

// WriteHTML writes r as one page that needs nothing else: no script, no other file, no
// network. It follows the reader's light or dark scheme and can be printed. Charts have
// their figures as a table beside them.
func (r *Report) WriteHTML(out io.Writer, language string) error {
	w, g := wordsOf(language), r.read()
	t, err := template.New("report").Funcs(template.FuncMap{
		"say": func(key string) (string, error) {
			if s, ok := w.say[key]; ok {
				return s, nil
			}
			return "", fmt.Errorf("no word for %q in %s", key, w.language)
		},
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("the page of a report: %w", err)
	}
	return t.Execute(out, g.page(w))
}

type (
	page struct {
		Language string
		Style    template.CSS
		Facts    [][2]string
		Scaled   bool

		Headline              string
		Good                  bool
		Met, Missed, NotRun   int
		MetWide, MissedWide   float64 // of 100
		Tiles                 []tile
		InAll                 grid
		Targets, MissedList   []targetRow
		Beaten                []beatenRow
		Thresholds            *thresholdsPage
		Attacks, Days         []glanceRow
		AttackPages, DayPages []scenarioPage
	}
	tile      struct{ Label, Value, Note string }
	targetRow struct {
		Verdict                                      Verdict
		Mark, Scenario, Anchor, Title, Metric, Limit string
		Worst, Seed, Median, Where                   string
	}
	beatenRow struct {
		Metric, Why string
		By          []string
		Where       []beatenIn
	}
	beatenIn struct{ Scenario, Anchor, Text string }
	bar      struct {
		Wide float64 // of 100
		Text string
		Much bool // over the limit, if there is one
	}
	glanceRow struct {
		Anchor, Scenario, Title string
		Mark                    string
		Bar                     bar
		BarHead                 string
		Cells                   []cell
	}
	scenarioPage struct {
		Anchor, Name, Title, Story, Tried string
		Chips                             []targetRow
		Chart                             *chart
		Compared, Groups, Variants        grid
		Alarms                            []alarmRow
		MoreAlarms                        int
	}
	grid struct {
		Heads []string
		Rows  []gridRow
	}
	gridRow struct {
		Head  string
		Ours  bool
		Cells []cell
	}
	cell struct {
		Head string // of its column
		Text string
		Bar  *bar
	}
	alarmRow struct{ Stratum, From, Length string }
)

func (g *reading) page(w lexicon) page {
	judged := g.Judge()
	p := page{Language: w.language, Style: template.CSS(pageStyle), Facts: g.facts(w), Scaled: g.scaled()}
	p.Met, p.Missed, p.NotRun = tally(judged)
	all := max(1, len(judged))
	p.MetWide, p.MissedWide = 100*float64(p.Met)/float64(all), 100*float64(p.Missed)/float64(all)
	p.Good = p.Missed == 0 && p.Met > 0
	switch {
	case p.Met+p.Missed == 0:
		p.Headline = w.say["headline none"]
	case p.Good:
		p.Headline = fmt.Sprintf(w.say["headline good"], p.Met)
	default:
		p.Headline = fmt.Sprintf(w.say["headline missed"], p.Missed, p.Met+p.Missed)
	}
	p.Tiles, p.InAll = g.tiles(w)
	for _, j := range bySeverity(judged) {
		row := g.target(w, j)
		p.Targets = append(p.Targets, row)
		if j.Verdict == Missed {
			p.MissedList = append(p.MissedList, row)
		}
	}
	p.Beaten = beatenRows(w, g.beaten())
	p.Thresholds = g.Thresholds.page(w)
	for _, s := range g.scenarios {
		ours := variant{s, Plain, g.Defense, false}
		glance := glanceRow{Anchor: anchor(s), Scenario: s, Title: w.title(s, g.Titles), Mark: worstMark(judged, s)}
		metrics, heads := []Metric{Lost, FirstCaught, SteppedUp}, []string{"caught", "lost", "acted after", "good stepped"}
		if g.ofPeople(s) {
			metrics, heads = []Metric{RefusedCount, QuietTrusted, AlarmCount}, []string{"good stepped", "refused", "known stepped", "alarms"}
			if j, ok := g.figure(ours, SteppedUp); ok {
				glance.Bar = bar{Wide: min(100, j.Worst.Value*2000), Text: percent(j.Worst.Value)} // the whole is 5%
			}
		} else if j, ok := g.figure(ours, Recall); ok {
			glance.Bar = bar{Wide: 100 * j.Worst.Value, Text: percent(j.Worst.Value)}
		}
		glance.BarHead = w.say[heads[0]]
		for i, m := range metrics {
			text := "–"
			if g.shown(s, m) {
				text = g.text(w, ours, m)
			}
			glance.Cells = append(glance.Cells, cell{Head: w.say[heads[i+1]], Text: text})
		}
		if g.ofPeople(s) {
			p.Days, p.DayPages = append(p.Days, glance), append(p.DayPages, g.scenario(w, s, judged))
		} else {
			p.Attacks, p.AttackPages = append(p.Attacks, glance), append(p.AttackPages, g.scenario(w, s, judged))
		}
	}
	return p
}

// beatenRows joins what has one reason; what nobody has explained yet comes first.
func beatenRows(w lexicon, all []Beaten) []beatenRow {
	type key struct {
		metric Metric
		why    string
	}
	var rows []beatenRow
	at := make(map[key]int)
	for _, b := range all {
		k := key{b.Metric, w.because(b)}
		i, ok := at[k]
		if !ok {
			i = len(rows)
			at[k] = i
			rows = append(rows, beatenRow{Metric: w.metric(b.Metric), Why: k.why})
		}
		r := &rows[i]
		if by := w.defense(b.By); !slices.Contains(r.By, by) {
			r.By = append(r.By, by)
		}
		unit := measures[b.Metric].unit
		in := beatenIn{b.Scenario, anchor(b.Scenario), w.number(unit, b.Ours.Worst.Value) + w.say["against"] + w.number(unit, b.Theirs.Worst.Value)}
		if b.Form == Evading {
			in.Scenario += " (" + w.say["evading"] + ")"
		}
		if last := len(r.Where) - 1; last < 0 || r.Where[last].Scenario != in.Scenario { // the first defense stands for all
			r.Where = append(r.Where, in)
		}
	}
	slices.SortStableFunc(rows, func(a, b beatenRow) int {
		return truth(a.Why != w.say["unexplained"]) - truth(b.Why != w.say["unexplained"])
	})
	return rows
}

func anchor(scenario string) string { return "s-" + scenario }

// text is the worst of a metric, and what it is a part of where that is a count.
func (g *reading) text(w lexicon, v variant, m Metric) string {
	j, ok := g.figure(v, m)
	if !ok {
		return "–"
	}
	s := w.number(measures[m].unit, j.Worst.Value)
	if m == Lost {
		if hits := g.worstOf(v, m).Attack.Hits; hits > 0 {
			s += " / " + thousands(float64(hits))
		}
	}
	return s
}

// worstOf is the result whose metric is the worst of v's seeds; there is one.
func (g *reading) worstOf(v variant, m Metric) *Result {
	var worst *Result
	var at float64
	for _, run := range g.runs[v] {
		if f, known := measures[m].read(run); known && (worst == nil || measures[m].worse(f.Value, at)) {
			worst, at = run, f.Value
		}
	}
	if worst == nil {
		return g.runs[v][0]
	}
	return worst
}

// worstMark is the mark of the worst verdict on a scenario; empty: no target is.
func worstMark(judged []Judged, scenario string) string {
	mark := ""
	for _, j := range judged {
		if j.Scenario != scenario {
			continue
		}
		if j.Verdict == Missed {
			return marks[Missed]
		}
		mark = cmp.Or(mark, marks[j.Verdict])
	}
	return mark
}

var marks = map[Verdict]string{Met: "✓", Missed: "✗", NotRun: "–"}

func (g *reading) target(w lexicon, j Judged) targetRow {
	row := targetRow{Verdict: j.Verdict, Mark: marks[j.Verdict], Scenario: j.Scenario, Title: w.title(j.Scenario, g.Titles), Metric: w.metric(j.Metric), Limit: w.both(j.Target)}
	if slices.Contains(g.scenarios, j.Scenario) {
		row.Anchor = anchor(j.Scenario)
	}
	if j.Verdict == NotRun {
		return row
	}
	m := measures[j.Metric]
	row.Worst, row.Median = w.number(m.unit, j.Joined.Worst.Value), w.number(m.unit, j.Joined.Median)
	if !m.total {
		row.Seed = fmt.Sprint(j.Joined.Seed)
	}
	if j.Where != j.Scenario {
		row.Where = j.Where
	}
	return row
}

// tiles sum up the plain forms as written, over all seeds, and inAll sets other defenses
// beside them.
func (g *reading) tiles(w lexicon) (tiles []tile, inAll grid) {
	type sum struct {
		attempts, caught, hits, lost, logins, refused int
		quiet, alarm                                  Group
	}
	sums := make(map[string]*sum)
	for i := range g.Results {
		r := &g.Results[i]
		if r.Form != Plain || r.Spread != 0 {
			continue
		}
		s := sums[r.Defense]
		if s == nil {
			s = new(sum)
			sums[r.Defense] = s
		}
		s.attempts += r.Attack.Attempts
		s.caught += r.Attack.Caught
		s.hits += r.Attack.Hits
		s.lost += r.Attack.Lost
		s.logins += r.People.All.LogIns
		s.refused += r.People.All.Refused
		p := PeopleResult{Calm: s.quiet, Alarm: s.alarm}
		p.join(r.People)
		s.quiet, s.alarm = p.Calm, p.Alarm
	}
	ours := cmp.Or(sums[g.Defense], new(sum))
	count := func(n int) string { return thousands(float64(n)) }
	rate := func(of, among int) string {
		if among == 0 {
			return "–"
		}
		return percent(float64(of) / float64(among))
	}
	tiles = []tile{
		{w.say["tile lost"], fmt.Sprintf(w.say["tile of"], count(ours.lost), count(ours.hits)), w.say["tile lost note"]},
		{w.say["tile caught"], rate(ours.caught, ours.attempts), fmt.Sprintf(w.say["tile caught note"], count(ours.attempts))},
		{w.say["tile refused"], fmt.Sprintf(w.say["tile of"], count(ours.refused), count(ours.logins)), w.say["tile refused note"]},
		{w.say["tile stepped"], rate(ours.quiet.SteppedUp, ours.quiet.LogIns), fmt.Sprintf(w.say["tile stepped note"], rate(ours.alarm.SteppedUp, ours.alarm.LogIns))},
	}
	if len(sums) < 2 {
		return tiles, grid{}
	}
	inAll = grid{Heads: []string{w.say["in all"], w.say["caught"], w.say["lost"], w.metrics[RefusedRate], w.say["quiet stepped"]}}
	for _, d := range g.defenses {
		s := sums[d]
		if s == nil {
			continue
		}
		caught := rate(s.caught, s.attempts)
		cells := []cell{{Text: caught, Bar: &bar{Text: caught, Wide: 100 * float64(s.caught) / float64(max(1, s.attempts))}},
			{Text: count(s.lost)}, {Text: rate(s.refused, s.logins)}, {Text: rate(s.quiet.SteppedUp, s.quiet.LogIns)}}
		inAll.Rows = append(inAll.Rows, gridRow{Head: w.defense(d), Ours: d == g.Defense, Cells: cells})
	}
	inAll.label()
	return tiles, inAll
}

// label gives each cell the head of its column, for narrow windows.
func (t *grid) label() {
	for _, r := range t.Rows {
		for i := range r.Cells {
			r.Cells[i].Head = t.Heads[i+1]
		}
	}
}

// alarmsShown bounds the list of alarms of a scenario.
const alarmsShown = 50

func (g *reading) scenario(w lexicon, s string, judged []Judged) scenarioPage {
	p := scenarioPage{Anchor: anchor(s), Name: s, Title: w.title(s, g.Titles), Story: w.told(s, g.Stories)}
	for _, j := range judged {
		if j.Scenario == s && j.Verdict != NotRun {
			p.Chips = append(p.Chips, g.target(w, j))
		}
	}
	ours := variant{s, Plain, g.Defense, false}
	if len(g.runs[ours]) == 0 { // another form or other parameters only
		for _, v := range g.variants {
			if v.Scenario == s && v.Defense == g.Defense {
				ours = v
				break
			}
		}
	}
	if runs := g.runs[ours]; len(runs) > 0 {
		m := Recall
		if g.ofPeople(s) {
			m = SteppedUp
		}
		worst := g.worstOf(ours, m)
		p.Tried = fmt.Sprintf(w.say["tried people"], thousands(float64(worst.People.All.LogIns)), worst.Seed)
		if a := worst.Attack; a.Attempts > 0 {
			p.Tried = fmt.Sprintf(w.say["tried attack"], thousands(float64(a.Attempts)), thousands(float64(a.Hits)), thousands(float64(worst.People.All.LogIns)), worst.Seed)
		}
		p.Chart = newChart(w, worst)
		for _, a := range worst.Alarms[:min(len(worst.Alarms), alarmsShown)] {
			p.Alarms = append(p.Alarms, alarmRow{a.Stratum, a.From.UTC().Format("2006-01-02 15:04"), w.length(a.To.Sub(a.From))})
		}
		p.MoreAlarms = max(0, len(worst.Alarms)-alarmsShown)
		p.Groups = groups(w, &worst.People)
	}
	metrics := []Metric{Recall, Lost, FirstCaught, RefusedRate, SteppedUp}
	if g.ofPeople(s) && (p.Chart == nil) {
		metrics = []Metric{RefusedRate, SteppedUp, Delayed, LockedOut}
	}
	var others, variants []variant
	for _, v := range g.variants {
		if v.Scenario != s {
			continue
		}
		if v.Form == ours.Form && v.Drawn == ours.Drawn {
			others = append(others, v)
		}
		if v.Defense == g.Defense {
			variants = append(variants, v)
		}
	}
	if len(others) > 1 {
		p.Compared = g.grid(w, others, metrics, w.say["defense"], func(v variant) string { return w.defense(v.Defense) })
	}
	if len(variants) > 1 {
		p.Variants = g.grid(w, variants, metrics, w.say["form"], func(v variant) string { return w.form(v, g.Spread) })
	}
	return p
}

// barLeast is the least that the whole of a bar stands for, so that next to nothing
// does not look like much.
const barLeast = 0.02

// grid is a table of variants down and metrics across, without metrics nobody has. A
// share has a bar: of the whole if more is better, else of the largest in its column.
func (g *reading) grid(w lexicon, rows []variant, metrics []Metric, corner string, name func(variant) string) grid {
	t := grid{Heads: []string{corner}}
	for _, v := range rows {
		t.Rows = append(t.Rows, gridRow{Head: name(v), Ours: v.Defense == g.Defense})
	}
	for _, m := range metrics {
		measure := measures[m]
		var cells []cell
		whole, any := 0.0, false
		for _, v := range rows {
			if j, ok := g.figure(v, m); ok {
				whole, any = max(whole, j.Worst.Value), true
			}
		}
		if !any {
			continue
		}
		if measure.better == Higher {
			whole = 1
		}
		whole = max(whole, barLeast)
		for _, v := range rows {
			c := cell{Text: g.text(w, v, m)}
			if j, ok := g.figure(v, m); ok && measure.unit == Share {
				c.Bar = &bar{Text: c.Text, Much: measure.better == Lower, Wide: 100 * j.Worst.Value / whole}
			}
			cells = append(cells, c)
		}
		t.Heads = append(t.Heads, w.metrics[m])
		for i := range cells {
			t.Rows[i].Cells = append(t.Rows[i].Cells, cells[i])
		}
	}
	t.label()
	return t
}

// groups is who was bothered: people down, what they met across.
func groups(w lexicon, p *PeopleResult) grid {
	t := grid{Heads: []string{w.say["people"], w.say["logins"], w.say["turned away"], w.say["stepped"], w.say["share"]}}
	most := barLeast
	for _, row := range []struct {
		name string
		Group
	}{
		{"group all", p.All}, {"group crowd", p.Crowd}, {"group quiet", p.Calm}, {"group quiet known", without(p.Device, p.DeviceAlarm)},
		{"group alarm", p.Alarm}, {"group alarm known", p.DeviceAlarm}, {"group alarm abroad", p.AbroadAlarm}, {"group shared", p.Carrier},
	} {
		f, ok := steppedUp(row.Group)
		if !ok {
			continue
		}
		most = max(most, f.Value)
		t.Rows = append(t.Rows, gridRow{Head: w.say[row.name], Cells: []cell{
			{Text: thousands(float64(row.LogIns))}, {Text: thousands(float64(row.Refused))}, {Text: thousands(float64(row.SteppedUp))},
			{Text: percent(f.Value), Bar: &bar{Wide: f.Value, Text: percent(f.Value), Much: true}},
		}})
	}
	for _, r := range t.Rows {
		b := r.Cells[3].Bar
		b.Wide = 100 * b.Wide / most
	}
	t.label()
	return t
}

// chart is the time of a scenario: attempts, the times of alarms, and good log-ins.
// Numbers of geometry are of a width of 1,000 and a height of 100.
type chart struct {
	Label     string
	Attack    *panel // nil: nothing was tried
	People    *panel // nil: nobody logged in
	Alarms    []box
	First     *float64
	FirstText string
	Ticks     []string
	Rows      [][5]string // from, attempts, caught, good log-ins, of these bothered
}

// panel is bars of two parts, the lower one the smaller in a good world.
type panel struct {
	Most         string
	Upper, Lower []box
}

type box struct{ X, Y, W, H float64 }

// slicesShown bounds a chart.
const slicesShown = 200

// newChart is nil for a result without slices.
func newChart(w lexicon, r *Result) *chart {
	pieces := fewer(r.Attack.Slices)
	if len(pieces) < 2 {
		return nil
	}
	begin := pieces[0].At
	step := pieces[1].At.Sub(begin)
	span := step * time.Duration(len(pieces))
	if step <= 0 {
		return nil
	}
	at := func(d time.Duration) float64 { return round(1000 * min(1, max(0, float64(d)/float64(span)))) }
	c := &chart{Label: fmt.Sprintf(w.say["chart label"], thousands(float64(r.Attack.Attempts)), thousands(float64(r.Attack.Caught)), thousands(float64(r.People.All.LogIns)))}
	draw := func(what string, parts func(Slice) (upper, lower int)) *panel {
		most := 0
		for _, s := range pieces {
			upper, lower := parts(s)
			most = max(most, upper+lower)
		}
		if most == 0 {
			return nil
		}
		p := &panel{Most: fmt.Sprintf(w.say[what], thousands(float64(most)), w.length(step))}
		for _, s := range pieces {
			upper, lower := parts(s)
			x := at(s.At.Sub(begin))
			wide := round(1000/float64(len(pieces)) - 1)
			up, low := round(100*float64(upper)/float64(most)), round(100*float64(lower)/float64(most))
			if upper > 0 {
				p.Upper = append(p.Upper, box{x, round(100 - low - up), wide, up})
			}
			if lower > 0 {
				low = max(low, 1) // what happened can be seen
				p.Lower = append(p.Lower, box{x, round(100 - low), wide, low})
			}
		}
		return p
	}
	c.Attack = draw("per slice", func(s Slice) (int, int) { return s.Caught, s.Through })
	c.People = draw("good slice", func(s Slice) (int, int) { return s.Good - s.Bothered, s.Bothered })
	var began time.Duration // of the attack
	for i := len(pieces) - 1; i >= 0; i-- {
		s := pieces[i]
		if s.Caught+s.Through > 0 {
			began = s.At.Sub(begin)
		}
	}
	for _, s := range pieces {
		c.Rows = append(c.Rows, [5]string{w.length(s.At.Sub(begin)), thousands(float64(s.Caught + s.Through)), thousands(float64(s.Caught)),
			thousands(float64(s.Good)), thousands(float64(s.Bothered))})
	}
	for _, a := range r.Alarms[:min(len(r.Alarms), slicesShown)] {
		from, to := at(a.From.Sub(begin)), at(a.To.Sub(begin))
		if a.To.After(begin) && from < 1000 {
			c.Alarms = append(c.Alarms, box{min(from, 997), 0, max(3, round(to-from)), 100})
		}
	}
	if r.Attack.Attempts > 0 {
		c.FirstText = w.say["first never"]
		if n := r.Attack.First; n != nil {
			after := time.Duration(r.Attack.FirstSeconds * float64(time.Second))
			x := at(began + after)
			c.First = &x
			c.FirstText = fmt.Sprintf(w.say["first at"], thousands(float64(*n)), w.length(after))
		}
	}
	for i := range 5 {
		c.Ticks = append(c.Ticks, w.length(span*time.Duration(i)/4))
	}
	return c
}

func round(v float64) float64 { return float64(int(v*10+0.5)) / 10 }

// fewer joins neighbours until there are few enough to draw.
func fewer(all []Slice) []Slice {
	n := (len(all) + slicesShown - 1) / slicesShown
	if n <= 1 {
		return all
	}
	var joined []Slice
	for some := range slices.Chunk(all, n) {
		s := Slice{At: some[0].At}
		for _, x := range some {
			s.Caught += x.Caught
			s.Through += x.Through
			s.Good += x.Good
			s.Bothered += x.Bothered
		}
		joined = append(joined, s)
	}
	return joined
}
