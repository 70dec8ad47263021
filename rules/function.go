package rules

import (
	"net/netip"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	listedFunction    = "listed"
	inNetworkFunction = "inNetwork"
)

// functions are what conditions can do beside CEL's own. Their constant arguments are
// checked by arguments when a condition is compiled.
func (l *language) functions() []cel.EnvOption {
	listed := cel.BinaryBinding(func(name, value ref.Val) ref.Val {
		in := l.lists[string(name.(types.String))]
		switch v := value.(type) {
		case types.String:
			return types.Bool(in.has(string(v)))
		case types.Int:
			if v == 0 {
				return types.False // not known
			}
			return types.Bool(in.has(string(v.ConvertToType(types.StringType).(types.String))))
		}
		return types.MaybeNoSuchOverloadErr(value)
	})
	return []cel.EnvOption{
		cel.Function(listedFunction,
			cel.Overload("listed_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, listed),
			cel.Overload("listed_int", []*cel.Type{cel.StringType, cel.IntType}, cel.BoolType, listed)),
		cel.Function(inNetworkFunction,
			cel.Overload("in_network", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(func(address, network ref.Val) ref.Val {
				a, err := netip.ParseAddr(string(address.(types.String)))
				if err != nil {
					return types.False // not known
				}
				p, err := netip.ParsePrefix(string(network.(types.String)))
				return types.Bool(err == nil && p.Contains(a))
			}))),
		cel.Function("lowerAscii",
			cel.MemberOverload("string_lower_ascii", []*cel.Type{cel.StringType}, cel.StringType, cel.UnaryBinding(func(s ref.Val) ref.Val {
				return types.String(strings.Map(func(r rune) rune {
					if r >= 'A' && r <= 'Z' {
						return r + 'a' - 'A'
					}
					return r
				}, string(s.(types.String))))
			}))),
	}
}

// arguments checks what a function is asked: a list must exist and hold what the
// variable is, a network must be one. It returns the lists that are asked.
func (d *document) arguments(checked *cel.Ast, at func(line, column int) (int, int), what string) (asked []string) {
	native := checked.NativeRep()
	fault := func(e ast.Expr, format string, args ...any) {
		place := native.SourceInfo().GetStartLocation(e.ID())
		line, column := at(place.Line(), place.Column())
		d.faultAt(line, column, what+": "+format, args...)
	}
	constant := func(e ast.Expr) (string, bool) {
		if e.Kind() != ast.LiteralKind {
			return "", false
		}
		s, ok := e.AsLiteral().(types.String)
		return string(s), ok
	}
	ast.PreOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		args := e.AsCall().Args()
		switch e.AsCall().FunctionName() {
		case listedFunction:
			name, ok := constant(args[0])
			if !ok {
				fault(args[0], "listed: want the name of a list in quotes first")
				return
			}
			in := d.lists[name]
			if in == nil {
				fault(args[0], "listed: no list %.60q is in force: want one of %s", name, d.lists.names())
				return
			}
			if r := native.ReferenceMap()[args[1].ID()]; r == nil || !slices.Contains(in.kind.variables, r.Name) {
				fault(args[0], "listed: %s is a list of %s: want it asked for %s", name, in.kind.name, strings.Join(in.kind.variables, " or "))
				return
			}
			asked = append(asked, name)
		case inNetworkFunction:
			text, ok := constant(args[1])
			if !ok {
				fault(args[1], "inNetwork: want a network in quotes second")
				return
			}
			if p, err := netip.ParsePrefix(text); err != nil || p != p.Masked() || p.Addr().Is4In6() {
				fault(args[1], "inNetwork: %.60q: want a network such as 203.0.113.0/24, without bits beyond its length", text)
			}
		}
	}))
	slices.Sort(asked)
	return slices.Compact(asked)
}
