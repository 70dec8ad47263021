package rules

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	celenv "cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/detectors"
)

// variable is what conditions can say of an event.
type variable struct {
	name    string
	kind    *cel.Type
	meaning string
	value   func(*detectors.Event) ref.Val
}

var variables = []variable{
	{"kind", cel.StringType, "what happened: login, door, session, request, factor, message, operator", text(func(e *detectors.Event) string { return string(e.Kind) })},
	{"outcome", cel.StringType, "unknown, success, failure or refused; unknown at request but of operators", text(func(e *detectors.Event) string { return string(e.Outcome) })},
	{"route", cel.StringType, "class of the route, such as login; empty: any other", text(func(e *detectors.Event) string { return string(e.Route) })},
	{"name", cel.StringType, "keyed digest of the typed name, in hex; of a session without an act that of the token that was not accepted; empty: none", text(func(e *detectors.Event) string { return e.Name.Digest.String() })},
	{"account", cel.StringType, "the backend's identifier of the account; empty: not known to the gate", text(func(e *detectors.Event) string { return string(e.Account) })},
	{"organization", cel.StringType, "tenant of the account; empty: not known", text(func(e *detectors.Event) string { return string(e.Organization) })},
	{"existence", cel.StringType, "exists: the directory has the typed name; missing: there is no such account; empty: not known", text(func(e *detectors.Event) string { return string(e.Existence) })},
	{"unproven", cel.BoolType, "the password was right, and the gate withholds the answer until more is proven", truth(func(e *detectors.Event) bool { return e.Unproven })},
	{"history.logins", cel.IntType, "log-ins that the account completed before, to 255", number(func(e *detectors.Event) int { return e.History.Logins })},
	{"history.network", cel.BoolType, "the account logged in from this network before", truth(func(e *detectors.Event) bool { return e.History.Network })},
	{"history.operator", cel.BoolType, "the account logged in from this autonomous system before", truth(func(e *detectors.Event) bool { return e.History.Operator })},
	{"history.client", cel.BoolType, "the account logged in with a client of this fingerprint before", truth(func(e *detectors.Event) bool { return e.History.Client })},
	{"act", cel.StringType, "of a session: begun, minted (of a token) or ended, empty where a token was not accepted; of an operator what was done, such as decision.lift", text(func(e *detectors.Event) string { return string(e.Act) })},
	{"actor", cel.StringType, "who ended a session, or the operator who acted, such as operator:sato; empty: none", text(func(e *detectors.Event) string { return e.Actor })},
	{"size", cel.IntType, "bytes of the request's body; 0: not known", func(e *detectors.Event) ref.Val { return types.Int(e.Size) }},
	{"targets", cel.IntType, "to how many a message goes, 64 being that many or more; 0: not known", number(func(e *detectors.Event) int { return e.Targets })},
	{"session", cel.StringType, "identifier of our session; empty: none", text(func(e *detectors.Event) string { return e.Session })},
	{"ambiguous", cel.BoolType, "the request could be read in more than one way", truth(func(e *detectors.Event) bool { return e.Ambiguous })},
	{"source.address", cel.StringType, "client address; empty: not known", text(func(e *detectors.Event) string { return addressText(e.Source.Address) })},
	{"source.network", cel.StringType, "what counters key on: the /32 of an IPv4 address, the /64 of an IPv6 address", text(func(e *detectors.Event) string { return networkText(e.Source.Network) })},
	{"source.asn", cel.IntType, "number of the autonomous system; 0: not known", func(e *detectors.Event) ref.Val { return types.Int(e.Source.ASN) }},
	{"source.country", cel.StringType, "ISO 3166-1 code such as JP; empty: not known", text(func(e *detectors.Event) string { return e.Source.Country })},
	{"source.shared", cel.BoolType, "the address is known to be shared by many people", truth(func(e *detectors.Event) bool { return e.Source.Shared })},
	{"source.capacity", cel.IntType, "different accounts that log in from the network, this week or the week before, to 1,000; 10 are a crowd", number(func(e *detectors.Event) int { return e.History.Capacity })},
	{"device.id", cel.StringType, "identifier of the device; empty: no device cookie", text(func(e *detectors.Event) string { return e.Device.ID })},
	{"device.state", cel.StringType, "stranger, probation, trusted or forked; empty: no device cookie", text(func(e *detectors.Event) string { return string(e.Device.State) })},
	{"device.known", cel.BoolType, "the device completed a login on this account and was not copied since", truth(func(e *detectors.Event) bool { return e.Device.Known() })},
	{"credential", cel.StringType, "kind of the credential involved, as the preset names it", text(func(e *detectors.Event) string { return e.Credential })},
	{"client.ja4", cel.StringType, "TLS fingerprint of the client; empty: not known", text(func(e *detectors.Event) string { return e.Client.JA4 })},
	{"client.headers", cel.StringType, "digest of which header fields the client sends; empty: not known", text(func(e *detectors.Event) string { return e.Client.Headers })},
	{"client.family", cel.StringType, "family of the client's program, such as chrome; empty: not known", text(func(e *detectors.Event) string { return e.Client.Family })},
	{"client.contradicts", cel.BoolType, "what the client shows does not go together", truth(func(e *detectors.Event) bool { return e.Client.Incoherent })},
	{"fingerprint", cel.StringType, "the three of the client, joined by slashes; empty: none", text(func(e *detectors.Event) string { return e.Fingerprint })},
	{"password.repeat", cel.BoolType, "the same wrong pair was tried before", truth(func(e *detectors.Event) bool { return e.Password.Repeat })},
	{"password.typo", cel.BoolType, "within edit distance of a password that proved right", truth(func(e *detectors.Event) bool { return e.Password.Typo })},
	{"password.breached", cel.BoolType, "in the operator's list of breached passwords", truth(func(e *detectors.Event) bool { return e.Password.Breached })},
	{"password.popularity", cel.IntType, "height among popular failed passwords, 0 to 48; 44 is popular", func(e *detectors.Event) ref.Val { return types.Int(e.Password.Popularity) }},
	{"name.domain", cel.StringType, "what follows the @ of the typed name, in lower case; empty: none, or names may not be kept", text(nameDomain)},
	{"time", cel.TimestampType, "when it happened, UTC", func(e *detectors.Event) ref.Val { return types.Timestamp{Time: e.Time.UTC()} }},
	{"local.hour", cel.IntType, "the hour then, 0 to 23, on the clock of the organization, or where none is known of the service", number(func(e *detectors.Event) int { return e.Local().Hour() })},
	{"local.weekday", cel.IntType, "the day of the week then on that clock, 0 to 6, 0 being Sunday", number(func(e *detectors.Event) int { return int(e.Local().Weekday()) })},
}

var variableIndex = func() map[string]int {
	index := make(map[string]int, len(variables))
	for i, v := range variables {
		index[v.name] = i
	}
	return index
}()

// absent are variables that have no meaning where a rule is asked: before a backend
// answered there is no outcome.
var absent = map[string][]Stage{
	"outcome":  {LoginBefore, Message},
	"unproven": {Request, LoginBefore, Factor, Message},
	"targets":  {Request, LoginBefore, LoginAfter, Factor, Session},
	"act":      {LoginBefore, LoginAfter, Factor, Message},
	"actor":    {LoginBefore, LoginAfter, Factor, Message},
}

func text(of func(*detectors.Event) string) func(*detectors.Event) ref.Val {
	return func(e *detectors.Event) ref.Val { return types.String(of(e)) }
}

func number(of func(*detectors.Event) int) func(*detectors.Event) ref.Val {
	return func(e *detectors.Event) ref.Val { return types.Int(of(e)) }
}

func truth(of func(*detectors.Event) bool) func(*detectors.Event) ref.Val {
	return func(e *detectors.Event) ref.Val { return types.Bool(of(e)) }
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func networkText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// fieldNames are what counters may be kept by and count different values of.
var fieldNames = []string{"source.address", "source.network", "source.asn", "source.country", "name", "account", "organization",
	"session", "device", "credential", "fingerprint", "route", "act", "actor"}

// fieldText is the value of a field, empty when the event has none. It also
// serves for the scopes of decisions, which are a subset.
func fieldText(name string, e *detectors.Event) string {
	switch name {
	case "source.address":
		return addressText(e.Source.Address)
	case "source.network":
		return networkText(e.Source.Network)
	case "source.asn":
		if e.Source.ASN == 0 {
			return ""
		}
		return strconv.FormatUint(uint64(e.Source.ASN), 10)
	case "source.country":
		return e.Source.Country
	case "name":
		return e.Name.Digest.String()
	case "account":
		return string(e.Account)
	case "organization":
		return string(e.Organization)
	case "session":
		return e.Session
	case "device":
		return e.Device.ID
	case "credential":
		return e.Credential
	case "fingerprint":
		return e.Fingerprint
	case "route":
		return string(e.Route)
	case "act":
		return string(e.Act)
	case "actor":
		return e.Actor
	}
	return ""
}

// catalog is every signal that conditions may name.
var catalog = sync.OnceValue(func() []detectors.Description { return detectors.Default(time.Time{}).Catalog() })

// reserved are the names that a counter would hide something by.
var reserved = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{listedFunction: true, inNetworkFunction: true}
	for _, name := range []string{"all", "int", "uint", "double", "bool", "string", "bytes", "list", "map", "type", "dyn", "duration", "timestamp",
		"size", "matches", "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
		"let", "loop", "package", "namespace", "return", "var", "void", "while"} {
		all[name] = true
	}
	add := func(name string) {
		for i, c := range name + "." {
			if c == '.' {
				all[name[:i]] = true
			}
		}
	}
	for _, v := range variables {
		add(v.name)
	}
	for _, s := range catalog() {
		add(s.Name)
	}
	return all
})

// taken reports whether a counter of that name would hide something.
func taken(counter string) bool { return reserved()[counter] }

const (
	maxExpression = 4096   // characters of a condition
	maxVariable   = 1024   // characters assumed of a string in an event
	maxCost       = 20_000 // CEL cost units at worst, estimated at load; about a tenth of a millisecond
)

// language is CEL as conditions have it: typed variables, numbers that compare
// across types, and no macros. Without macros there are no loops, so that the
// cost estimated at load is a bound and needs no watching at run time.
type language struct {
	lists lists
	bare  *cel.Env           // without variables
	event *cel.Env           // of where: every variable, no signal
	at    map[Stage]*dialect // made when first asked for
}

// dialect is what can be said at a stage.
type dialect struct {
	event     *cel.Env // of exemptions
	condition *cel.Env // of when, without counters
}

func newLanguage(known lists) (*language, error) {
	equalities := []string{operators.Equals, operators.NotEquals}
	standard := celenv.NewLibrarySubset()
	for _, equality := range equalities {
		standard.AddExcludedFunctions(celenv.NewFunction(equality))
	}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(standard)),
		cel.ClearMacros(),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(50),
	}
	// Orders compare across types by an option. Equality is declared anew, for the
	// types that conditions have and for int with double; the interpreter compares
	// numbers by value whatever their types.
	for _, equality := range equalities {
		var overloads []cel.FunctionOpt
		for _, t := range []*cel.Type{cel.BoolType, cel.IntType, cel.DoubleType, cel.StringType, cel.TimestampType, cel.DurationType} {
			overloads = append(overloads, cel.Overload(equality+t.TypeName(), []*cel.Type{t, t}, cel.BoolType))
		}
		overloads = append(overloads,
			cel.Overload(equality+"double_int", []*cel.Type{cel.DoubleType, cel.IntType}, cel.BoolType),
			cel.Overload(equality+"int_double", []*cel.Type{cel.IntType, cel.DoubleType}, cel.BoolType))
		options = append(options, cel.Function(equality, overloads...))
	}
	l := &language{lists: known, at: map[Stage]*dialect{}}
	var err error
	if l.bare, err = cel.NewCustomEnv(append(options, l.functions()...)...); err == nil {
		l.event, err = l.with("")
	}
	if err != nil {
		return nil, fmt.Errorf("the language of conditions: %w", err)
	}
	return l, nil
}

// with is the language with the variables of a stage.
func (l *language) with(s Stage) (*cel.Env, error) {
	var options []cel.EnvOption
	for _, v := range variables {
		if !slices.Contains(absent[v.name], s) {
			options = append(options, cel.Variable(v.name, v.kind))
		}
	}
	return l.bare.Extend(options...)
}

// dialect is the language of a stage.
func (l *language) dialect(s Stage) (*dialect, error) {
	if d := l.at[s]; d != nil {
		return d, nil
	}
	d := &dialect{}
	var signals []cel.EnvOption
	for _, s := range catalog() {
		signals = append(signals, cel.Variable(s.Name, cel.DoubleType))
	}
	var err error
	if d.event, err = l.with(s); err == nil {
		d.condition, err = d.event.Extend(signals...)
	}
	if err != nil {
		return nil, fmt.Errorf("the language of conditions at %s: %w", s, err)
	}
	l.at[s] = d
	return d, nil
}

// expression is a compiled condition.
type expression struct {
	program cel.Program
	names   []string // variables it refers to, sorted
	cost    uint64   // CEL units at worst, up to maxCost
	lists   []string // that it asks, sorted
	tracer  *tracer
}

// compile tells its faults on d, at their place inside n.
func (d *document) compile(env *cel.Env, n *yaml.Node, what string) *expression {
	before := len(d.faults)
	ast, issues := env.Compile(n.Value)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			line, column := d.place(n, e.Location.Line(), e.Location.Column())
			message, _, _ := strings.Cut(e.Message, " (in container")
			if strings.HasPrefix(message, "undeclared reference") {
				name := dotted(n.Value, e.Location.Line(), e.Location.Column())
				if _, known := variableIndex[name]; known {
					message = fmt.Sprintf("%s is not known at this stage: README.md says where it is", name)
				} else if name != "" {
					message = fmt.Sprintf("no variable, signal or counter %s may be named here: README.md lists them", name)
				}
			}
			d.faultAt(line, column, "%s: %s", what, message)
		}
		return nil
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) {
		d.fault(n, "%s: the expression is of type %s, want bool", what, t)
		return nil
	}
	cost, err := env.EstimateCost(ast, sizes{})
	if err != nil || cost.Max > maxCost {
		d.fault(n, "%s: may cost up to %d units, want at most %d: compare less text", what, cost.Max, maxCost)
		return nil
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(findSlots))
	if err != nil {
		d.fault(n, "%s: %v", what, err)
		return nil
	}
	x := &expression{program: program, cost: cost.Max}
	at := func(line, column int) (int, int) { return d.place(n, line, column) }
	x.tracer = newTracer(env, ast, n.Value, at)
	if x.lists = d.arguments(ast, at, what); len(d.faults) > before {
		return nil
	}
	for id, why := range constants(ast, d.ranges) {
		part := n.Value
		for _, e := range partsOf(ast.NativeRep().Expr()) {
			if e.ID() == id {
				part, _ = cel.ExprToString(e, ast.NativeRep().SourceInfo())
			}
		}
		place := x.tracer.places[id]
		d.faultAt(place[0], place[1], "%s: %s %s", what, part, why)
	}
	if len(d.faults) > before {
		return nil
	}
	for _, r := range ast.NativeRep().ReferenceMap() {
		if r.Name != "" {
			x.names = append(x.names, r.Name)
		}
	}
	slices.Sort(x.names)
	x.names = slices.Compact(x.names)
	return x
}

var dottedPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*(\.[a-zA-Z_][a-zA-Z0-9_]*)*`)

// dotted is the name that begins at a place of an expression.
func dotted(expression string, line, column int) string {
	lines := strings.Split(expression, "\n")
	if line < 1 || line > len(lines) || column < 0 {
		return ""
	}
	text := []rune(lines[line-1])
	return dottedPattern.FindString(string(text[min(column, len(text)):]))
}

// place turns a position inside an expression into one in the file. Folded and
// multi-line quoted scalars lose their lines when they are read; there it is
// the place where the scalar begins.
func (d *document) place(n *yaml.Node, line, column int) (int, int) {
	switch {
	case n.Style&yaml.LiteralStyle != 0:
		line += n.Line
		if line-1 < len(d.lines) {
			text := d.lines[line-1]
			return line, len(text) - len(strings.TrimLeft(text, " ")) + column + 1
		}
	case n.Style&yaml.FoldedStyle == 0 && line == 1 && n.Line-1 < len(d.lines) && strings.Contains(d.lines[n.Line-1], n.Value):
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			column++
		}
		return n.Line, n.Column + column
	}
	return n.Line, n.Column
}

// sizes bounds what the estimate cannot know.
type sizes struct{}

func (sizes) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Max: maxVariable}
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// holds evaluates x. An error, such as a division by zero, is no match.
func (x *expression) holds(f *facts) (bool, error) {
	v, _, err := x.program.Eval(f.frame)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the condition gave %s, want bool", v.Type().TypeName())
	}
	return bool(b), nil
}
