package rules

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	maxFile   = 256 << 10
	maxThen   = 8
	maxExcept = 32
	maxFaults = 50 // told of one file; more help nobody
)

// document is a rule file while it is read. Reading goes on after a fault, so
// that an author hears of all of them at once.
type document struct {
	file   string
	lines  []string
	lists  lists             // that conditions and exemptions may ask
	ranges map[string]values // of the counters
	faults []*fault
	shape  shape // of what is read, while the format is described instead; see schema.go
}

// fault is something wrong at a place of a file.
type fault struct {
	file         string
	line, column int
	message      string
}

func (f *fault) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.file, f.line, f.column, f.message)
}

// fault notes that something at n is wrong: file:line:column: what was expected.
func (d *document) fault(n *yaml.Node, format string, args ...any) {
	d.faultAt(n.Line, n.Column, format, args...)
}

func (d *document) faultAt(line, column int, format string, args ...any) {
	if len(d.faults) == maxFaults {
		return
	}
	d.faults = append(d.faults, &fault{d.file, line, column, fmt.Sprintf(format, args...)})
}

// errors returns the faults in the order of the file.
func (d *document) errors() []error {
	slices.SortStableFunc(d.faults, func(a, b *fault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	errs := make([]error, len(d.faults))
	for i, f := range d.faults {
		errs[i] = f
	}
	return errs
}

// field is what may stand under a key and how to read it.
type field struct {
	name     string
	required bool
	read     func(*yaml.Node)
}

// mapping reads n by fields. It refuses keys that are unknown or appear twice,
// and tells of required ones that are missing.
func (d *document) mapping(n *yaml.Node, what string, fields ...field) {
	if d.shape != nil {
		d.describeMapping(n, fields)
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fault(n, "%s: want a mapping, got %s", what, kindOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		switch {
		case key.Kind != yaml.ScalarNode || at < 0:
			names := make([]string, len(fields))
			for j, f := range fields {
				names[j] = f.name
			}
			d.fault(key, "%s: unknown key %s: want one of %s", what, shown(key), strings.Join(names, ", "))
		case seen[key.Value]:
			d.fault(key, "%s: key %q appears twice", what, key.Value)
		default:
			seen[key.Value] = true
			fields[at].read(value)
		}
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			d.fault(n, "%s: %q is missing", what, f.name)
		}
	}
}

// list reads the elements of a sequence.
func (d *document) list(n *yaml.Node, what string, limit int, read func(*yaml.Node)) {
	switch {
	case d.shape != nil:
		d.describeList(n, limit, read)
	case n.Kind != yaml.SequenceNode:
		d.fault(n, "%s: want a list, got %s", what, kindOf(n))
	case len(n.Content) == 0:
		d.fault(n, "%s: the list is empty", what)
	case len(n.Content) > limit:
		d.fault(n, "%s: %d elements, want at most %d", what, len(n.Content), limit)
	default:
		for _, e := range n.Content {
			read(e)
		}
	}
}

// text reads a scalar that is not empty.
func (d *document) text(n *yaml.Node, what string) (string, bool) {
	if d.described(shape{"type": "string", "minLength": 1}) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || strings.TrimSpace(n.Value) == "" {
		d.fault(n, "%s: want text, got %s", what, kindOf(n))
		return "", false
	}
	return n.Value, true
}

func (d *document) textInto(what string, into *string) func(*yaml.Node) {
	return func(n *yaml.Node) { *into, _ = d.text(n, what) }
}

// choice reads one of a closed set.
func (d *document) choice(n *yaml.Node, what string, of []string) string {
	if d.described(shape{"enum": of}) {
		return ""
	}
	s, ok := d.text(n, what)
	if ok && !slices.Contains(of, s) {
		d.fault(n, "%s: unknown value %s: want one of %s", what, shown(n), strings.Join(of, ", "))
		return ""
	}
	return s
}

func (d *document) choiceInto(what string, of []string, into *string) func(*yaml.Node) {
	return func(n *yaml.Node) { *into = d.choice(n, what, of) }
}

// formed reads text of a form. The example says which.
func (d *document) formed(n *yaml.Node, what string, form *regexp.Regexp, example string) string {
	if d.described(shape{"type": "string", "pattern": form.String()}) {
		return ""
	}
	s, ok := d.text(n, what)
	if ok && !form.MatchString(s) {
		d.fault(n, "%s: %s: want %s", what, shown(n), example)
		return ""
	}
	return s
}

func (d *document) matchesInto(what string, pattern *regexp.Regexp, example string, into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		d.list(n, what, 32, func(e *yaml.Node) {
			*into = append(*into, d.formed(e, what, pattern, "the form "+example))
		})
	}
}

// dateInto reads a day as its first moment, UTC.
func (d *document) dateInto(what string, into *time.Time) func(*yaml.Node) {
	return func(n *yaml.Node) {
		s, ok := d.text(n, what)
		if !ok {
			d.described(shape{"format": "date", "pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`})
			return
		}
		var err error
		if *into, err = time.Parse(time.DateOnly, s); err != nil {
			d.fault(n, "%s: %s: want a date such as 2027-03-31", what, shown(n))
		}
	}
}

func (d *document) durationInto(what string, least, most time.Duration, into *time.Duration) func(*yaml.Node) {
	return func(n *yaml.Node) {
		s, ok := d.text(n, what)
		if !ok {
			d.described(shape{"pattern": durationPattern, "description": durationText(least) + " to " + durationText(most)})
			return
		}
		v, err := parseDuration(s)
		if err != nil {
			d.fault(n, "%s: %s: want a duration such as 90s, 10m, 12h or 7d", what, shown(n))
			return
		}
		if v < least || v > most {
			d.fault(n, "%s: %s: want %s to %s", what, shown(n), durationText(least), durationText(most))
			return
		}
		*into = v
	}
}

func (d *document) percent(n *yaml.Node, what, text string) float64 {
	if d.described(shape{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$`}) {
		return 0
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !strings.HasSuffix(text, "%") || math.IsNaN(v) || v <= 0 || v > 100 {
		d.fault(n, "%s: %s: want a share above 0%% and up to 100%%, such as 10%%", what, shown(n))
		return 0
	}
	return v
}

func (d *document) integerInto(what string, least, most int, into *int) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if d.described(shape{"type": "integer", "minimum": least, "maximum": most}) {
			return
		}
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v < least || v > most {
			d.fault(n, "%s: %s: want a whole number from %d to %d", what, shown(n), least, most)
			return
		}
		*into = v
	}
}

func (d *document) boolInto(what string, into *bool) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if d.described(shape{"type": "boolean"}) {
			return
		}
		if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
			d.fault(n, "%s: %s: want true or false", what, shown(n))
			return
		}
		*into = n.Value == "true"
	}
}

var (
	idPattern      = regexp.MustCompile(`^[a-z0-9]+([.-][a-z0-9]+)*$`)
	counterPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	csfPattern     = regexp.MustCompile(`^(GV|ID|PR|DE|RS|RC)\.[A-Z]{2}-\d{2}$`)
	attackPattern  = regexp.MustCompile(`^T\d{4}(\.\d{3})?$`)
	oatPattern     = regexp.MustCompile(`^OAT-\d{3}$`)
	slugPattern    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

	severities = []string{"critical", "high", "medium", "low", "info"} // in the order of findings
	scopes     = []string{"source.address", "source.network", "source.asn", "source.country", "account", "session", "device", "credential", "fingerprint"}
	keys       = append(slices.Clone(scopes), "actor") // of notices and incidents
	addressees = []string{"operators", "owner", "account"}
)

func stageNames() []string { return strings.Split(joined(stages), ", ") }

// joined lists what has names.
func joined[T ~string | Action](of []T) string {
	names := make([]string, len(of))
	for i, n := range of {
		names[i] = fmt.Sprint(n)
	}
	return strings.Join(names, ", ")
}

// decode reads the rule in a file. The rule is complete only if no fault is told.
func decode(file string, content []byte) (*draft, []error) {
	d := &document{file: file}
	if len(content) > maxFile {
		d.faultAt(1, 1, "%d bytes, want at most %d: split the rule, or shorten its tests", len(content), maxFile)
		return nil, d.errors()
	}
	d.lines = strings.Split(string(content), "\n")
	var root, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			d.faultAt(1, 1, "the file is empty: want a rule")
		} else {
			d.yamlFault(err)
		}
		return nil, d.errors()
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		d.fault(&second, "a second document begins: want one rule per file")
	case !errors.Is(err, io.EOF):
		d.yamlFault(err)
	}
	d.refuseAliases(&root)
	if len(d.faults) > 0 || len(root.Content) == 0 {
		return nil, d.errors()
	}
	sum := sha256.Sum256(content)
	r := &draft{Rule: Rule{Generation: hex.EncodeToString(sum[:]), File: file, Text: string(content)}, document: d}
	r.read(root.Content[0])
	return r, d.errors()
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

func (d *document) yamlFault(err error) {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		d.faultAt(line, 1, "not YAML: %s", m[2])
		return
	}
	d.faultAt(1, 1, "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
}

// refuseAliases keeps a small file from becoming a large one, and a rule from
// meaning something that is not written where it is read.
func (d *document) refuseAliases(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		d.fault(n, "alias *%s: aliases are not allowed, write the value out", n.Value)
		return
	}
	if n.Anchor != "" {
		d.fault(n, "anchor &%s: anchors are not allowed", n.Anchor)
	}
	for _, c := range n.Content {
		d.refuseAliases(c)
	}
}

// draft is a rule with the places of what the compiler still has to check.
type draft struct {
	Rule
	*document
	node   *yaml.Node
	when   *yaml.Node
	counts []*yaml.Node          // names of counters, in the order of the file
	where  map[string]*yaml.Node // by name of the counter
	ratio  map[string]*yaml.Node // likewise
	trials []trial

	exemptions []*draftExemption
	responses  []draftResponse
}

func (r *draft) read(n *yaml.Node) {
	r.node, r.where, r.ratio = n, map[string]*yaml.Node{}, map[string]*yaml.Node{}
	var id string
	r.mapping(n, "rule",
		field{"id", true, func(n *yaml.Node) {
			id = r.formed(n, "id", idPattern, "lower-case words joined by dots and hyphens, such as stuffing.many-accounts")
		}},
		field{"title", true, r.textInto("title", &r.Title)},
		field{"severity", true, r.choiceInto("severity", severities, &r.Severity)},
		field{"tags", false, func(n *yaml.Node) {
			r.mapping(n, "tags",
				field{"csf", false, r.matchesInto("tags.csf", csfPattern, "DE.CM-09", &r.Tags.CSF)},
				field{"attack", false, r.matchesInto("tags.attack", attackPattern, "T1110.004", &r.Tags.Attack)},
				field{"oat", false, r.matchesInto("tags.oat", oatPattern, "OAT-008", &r.Tags.OAT)})
		}},
		field{"owner", true, r.textInto("owner", &r.Owner)},
		field{"reason", true, r.textInto("reason", &r.Reason)},
		field{"review_by", true, r.dateInto("review_by", &r.ReviewBy)},
		field{"count", false, r.readCounters},
		field{"on", true, func(n *yaml.Node) {
			r.On = Stage(r.choice(n, "on", stageNames()))
		}},
		field{"when", true, func(n *yaml.Node) {
			if s, ok := r.text(n, "when"); ok {
				r.When, r.when = s, n
			}
		}},
		field{"except", false, func(n *yaml.Node) { r.list(n, "except", maxExcept, r.readExemption) }},
		field{"then", true, func(n *yaml.Node) { r.list(n, "then", maxThen, r.readResponse) }},
		field{"mode", true, r.readMode},
		field{"budget", false, func(n *yaml.Node) {
			r.Budget = &Budget{}
			r.mapping(n, "budget",
				field{"false_positives", true, func(n *yaml.Node) {
					r.Budget.FalsePositives = r.percent(n, "budget.false_positives", n.Value)
				}},
				field{"over", true, r.durationInto("budget.over", time.Hour, 90*day, &r.Budget.Over)})
		}},
		field{"tests", true, func(n *yaml.Node) { r.list(n, "tests", maxTests, r.readTest) }},
	)
	r.ID = ID(id)
	r.checkAnswers()
}

// readExemption reads who need not fear the rule. An exemption without an end would
// be a hole that nobody remembers.
func (r *draft) readExemption(n *yaml.Node) {
	x := &draftExemption{node: n}
	r.mapping(n, "except",
		field{"when", false, func(n *yaml.Node) {
			if s, ok := r.text(n, "except.when"); ok {
				x.When, x.when = s, n
			}
		}},
		field{"list", false, func(n *yaml.Node) {
			x.List, x.list = r.formed(n, "except.list", listPattern, "the name of a file in lists/, without its ending"), n
		}},
		field{"owner", true, r.textInto("except.owner", &x.Owner)},
		field{"reason", true, r.textInto("except.reason", &x.Reason)},
		field{"until", true, r.dateInto("except.until", &x.Until)})
	r.describeOne("when", "list")
	if n.Kind == yaml.MappingNode && (x.when == nil) == (x.list == nil) {
		r.fault(n, "except: want either when: CONDITION or list: NAME")
	}
	r.exemptions = append(r.exemptions, x)
}

func (r *draft) readResponse(n *yaml.Node) {
	p := draftResponse{node: n}
	kinds := 0
	one := func(name string, read func(*yaml.Node)) field {
		return field{name, false, func(n *yaml.Node) { kinds++; read(n) }}
	}
	r.mapping(n, "then",
		one("decide", func(n *yaml.Node) {
			p.Decide = &Decide{}
			r.mapping(n, "then.decide",
				field{"scope", true, r.choiceInto("then.decide.scope", scopes, &p.Decide.Scope)},
				field{"action", true, func(n *yaml.Node) { p.Decide.Action = r.readAction(n, "then.decide.action") }},
				field{"for", true, r.durationInto("then.decide.for", time.Second, 30*day, &p.Decide.For)},
				field{"else", false, func(n *yaml.Node) { p.Decide.Else = r.readElse(n, "then.decide.else") }})
			if e := p.Decide.Else; e != nil && *e == p.Decide.Action {
				r.fault(n, "then.decide.else: %s is what cannot be done: want another action, or none", *e)
			}
		}),
		one("answer", func(n *yaml.Node) { p.Answer, p.answer = r.readAction(n, "then.answer"), n }),
		field{"else", false, func(n *yaml.Node) { p.Else = r.readElse(n, "then.else") }},
		one("notify", func(n *yaml.Node) {
			p.Notify = &Notify{}
			r.mapping(n, "then.notify",
				field{"to", true, r.choiceInto("then.notify.to", addressees, &p.Notify.To)},
				field{"key", true, r.choiceInto("then.notify.key", keys, &p.Notify.Key)},
				field{"every", true, r.durationInto("then.notify.every", time.Minute, 30*day, &p.Notify.Every)})
		}),
		one("incident", func(n *yaml.Node) {
			p.Incident = &Incident{}
			r.mapping(n, "then.incident",
				field{"category", true, func(n *yaml.Node) {
					p.Incident.Category = r.formed(n, "then.incident.category", slugPattern, "lower-case words joined by hyphens")
				}},
				field{"key", true, r.choiceInto("then.incident.key", keys, &p.Incident.Key)})
		}),
		one("tag", func(n *yaml.Node) {
			p.Tag = r.formed(n, "then.tag", slugPattern, "lower-case words joined by hyphens")
		}))
	r.describeOne("decide", "answer", "notify", "incident", "tag")
	if r.shape != nil || n.Kind != yaml.MappingNode {
		return
	}
	switch {
	case kinds != 1:
		r.fault(n, "then: want one response per element: decide, answer, notify, incident or tag")
	case p.Else != nil && p.answer == nil:
		r.fault(n, "then.else: want it beside answer; of a decision it stands inside decide")
	case p.Else != nil && *p.Else == p.Answer:
		r.fault(n, "then.else: %s is what cannot be done: want another action, or none", p.Answer)
	}
	r.responses = append(r.responses, p)
	r.Then = append(r.Then, p.Response)
}

// draftResponse is a response with its place.
type draftResponse struct {
	Response
	node, answer *yaml.Node
}

// draftExemption is an exemption with the places of what is still to be checked.
type draftExemption struct {
	Exemption
	node, when, list *yaml.Node
}

// checkAnswers refuses answers that have no meaning at the rule's stage.
func (r *draft) checkAnswers() {
	for _, p := range r.responses {
		if may := answers[r.On]; p.Answer != Allow && may != nil && !slices.Contains(may, p.Answer) {
			r.fault(p.answer, "then.answer: %s cannot be answered at stage %s: want one of %s", p.Answer, r.On, joined(may))
		}
	}
}

var denials = []string{"delay", "step_up", "refuse", "deceive"}

func (r *draft) readAction(n *yaml.Node, what string) Action {
	a, _ := ParseAction(r.choice(n, what, denials))
	return a
}

// readElse reads what to do where an action cannot be done; none is [Allow].
func (r *draft) readElse(n *yaml.Node, what string) *Action {
	a := Allow
	switch s := r.choice(n, what, append(slices.Clone(denials), "none")); s {
	case "":
		return nil
	case "none":
	default:
		a, _ = ParseAction(s)
	}
	return &a
}

func (r *draft) readMode(n *yaml.Node) {
	if r.described(shape{"type": "string", "pattern": `^(shadow|enforce|canary [0-9]+(\.[0-9]+)?%)$`}) {
		return
	}
	s, ok := r.text(n, "mode")
	switch {
	case !ok:
	case s == string(Shadow), s == string(Enforce):
		r.Mode = Mode(s)
	case strings.HasPrefix(s, "canary "):
		r.Mode, r.Canary = Enforce, r.percent(n, "mode", strings.TrimPrefix(s, "canary "))
	default:
		r.fault(n, "mode: unknown value %s: want shadow, canary N%% or enforce", shown(n))
	}
}

const day = 24 * time.Hour

// parseDuration reads what [time.ParseDuration] does, and whole days: "7d".
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * day, err
	}
	return time.ParseDuration(s)
}

const durationPattern = `^([0-9]+d|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+|0)$` // what parseDuration reads

// durationText writes d as parseDuration reads it.
func durationText(d time.Duration) string {
	switch {
	case d != 0 && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d != 0 && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d != 0 && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.ScalarNode && strings.TrimSpace(n.Value) != "" && n.Tag != "!!null":
		return shown(n)
	}
	return "nothing"
}

// shown quotes a scalar, shortened.
func shown(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return kindOf(n)
	}
	if r := []rune(n.Value); len(r) > 60 {
		return strconv.Quote(string(r[:60]) + "…")
	}
	return strconv.Quote(n.Value)
}
