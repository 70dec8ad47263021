package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func rulesExplain() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain ID --api URL --key-file FILE",
		Short: "Says why a rule matched",
		Long: `
Tells what is behind the code that somebody reads out, the id of a decision or the id of
a finding: which rule matched, what its counters and signals were, which part of its
condition decided, and where that stands in the file, as the file was then. Findings are
kept for 30 days, of a rule the latest 10,000. The role of the key is viewer or more.`,
		Args: one("the code or id"),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	open := operatorsAPIFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		gate, err := open()
		if err != nil {
			return err
		}
		text, err := gate.call(cmd.Context(), http.MethodGet, "/v1/findings/"+url.PathEscape(args[0]), nil)
		if err != nil {
			return fmt.Errorf("explaining %s: %w", args[0], err)
		}
		if asJSON {
			_, err := os.Stdout.Write(text)
			return err
		}
		var s policies.Story
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("reading what the gate answered: %w", err)
		}
		return showStory(os.Stdout, s)
	}
	return cmd
}

// showStory writes a story in words.
func showStory(w io.Writer, s policies.Story) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s leads to rule %s", s.Reference, s.Rule)
	if s.Decision != "" {
		fmt.Fprintf(&b, ", by decision %s", s.Decision)
	}
	b.WriteString(".\n")
	if len(s.Findings) == 0 {
		b.WriteString("What the rule found is not kept, or not any more; the rule's other findings and the log may tell.\n")
	}
	for _, f := range s.Findings {
		fmt.Fprintf(&b, "\nFinding %s, %s, at %s\n", f.ID, f.Time.UTC().Format(time.RFC3339), f.Stage)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "  rule\t%s: %s (%s)\n", f.Rule, f.Title, f.Severity)
		who := f.Account
		if who == "" {
			who = "not known"
		}
		if f.Organization != "" {
			who += " of " + f.Organization
		}
		if f.Source != "" {
			who += ", from " + f.Source
		}
		fmt.Fprintf(t, "  account\t%s\n", who)
		for _, p := range f.Then {
			fmt.Fprintf(t, "  proposed\t%s\n", proposal(p))
		}
		for _, id := range f.Incidents {
			fmt.Fprintf(t, "  incident\t%s\n", id)
		}
		if f.Fall != rules.Stands {
			fmt.Fprintf(t, "  fallen\tto %s, because the rule spent its budget\n", f.Fall)
		}
		fmt.Fprintf(t, "  file\t%s, generation %.12s\n", f.Explanation.File, f.Generation)
		_ = t.Flush() // into memory
		showParts(&b, f, s.Texts[f.Generation])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// showParts writes the parts of a condition, and the lines of the file that they are in.
func showParts(b *strings.Builder, f policies.Found, text string) {
	x := f.Explanation
	if len(x.Parts) == 0 {
		fmt.Fprintf(b, "What decided is not known; the rule said: %s\n", f.Why)
		return
	}
	b.WriteString("The condition held because of what is marked with *:\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	lines := map[int]bool{}
	for _, p := range x.Parts {
		mark := " "
		if p.Decided {
			mark = "*"
		}
		lines[p.Line] = true
		var values []string
		for _, name := range p.Names {
			value, _ := json.Marshal(x.Values[name]) // it came as JSON
			values = append(values, fmt.Sprintf("%s is %s", name, value))
		}
		fmt.Fprintf(t, "  %s:%d:%d\t%s %s\t%s\t%s\n", x.File, p.Line, p.Column, mark, p.Text, p.Result, strings.Join(values, ", "))
	}
	_ = t.Flush()
	all := strings.Split(text, "\n")
	if text == "" {
		return
	}
	fmt.Fprintf(b, "%s as it was then:\n", x.File)
	for _, n := range slices.Sorted(maps.Keys(lines)) {
		if n >= 1 && n <= len(all) {
			fmt.Fprintf(b, "  %4d | %s\n", n, all[n-1])
		}
	}
}

// proposal is what a response is, in words.
func proposal(p rules.Response) string {
	words := "nothing that is known here"
	switch {
	case p.Decide != nil:
		words = fmt.Sprintf("%s %s for %v", p.Decide.Action, p.Decide.Scope, p.Decide.For)
	case p.Answer != rules.Allow:
		words = fmt.Sprintf("answer the attempt: %s", p.Answer)
	case p.Incident != nil:
		words = fmt.Sprintf("an incident %s of %s", p.Incident.Category, p.Incident.Key)
	}
	if p.Mode != "" {
		words += " (" + string(p.Mode) + ")"
	}
	return words
}

func rulesUndo() *cobra.Command {
	var from, to string
	var asJSON, apply bool
	cmd := &cobra.Command{
		Use:   "undo RULE --from TIME [--to TIME] [--apply] --api URL --key-file FILE",
		Short: "Takes back what a rule decided in some time",
		Long: `
Shows which decisions a rule made in some time that still act, on whom, and the accounts of
which organizations the rule hit. Nothing is changed without --apply. With it the decisions
are lifted, each on record in the name of the key, whose role is responder or admin; doing
it again lifts what came since. The rule itself stays in force: take it out, or mend it,
first. It is held off from the same decisions as after any lifting.`,
		Args: one("the id of the rule"),
	}
	cmd.Flags().StringVar(&from, "from", "", "decisions made since then: a `time` such as 2026-11-23T09:00:00Z, or 2h for that long ago")
	cmd.Flags().StringVar(&to, "to", "", "decisions made before that `time`, in the same forms (default: now)")
	cmd.Flags().BoolVar(&apply, "apply", false, "lift the decisions")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	open := operatorsAPIFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		now := time.Now()
		first, err := moment("--from", from, now, time.Time{})
		if err != nil {
			return err
		}
		last, err := moment("--to", to, now, now)
		if err != nil {
			return err
		}
		if first.IsZero() || !first.Before(last) {
			return fmt.Errorf("--from %q is missing or not before --to: say since when the decisions are to be undone", from)
		}
		gate, err := open()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
		defer stop()
		u, err := undo(ctx, gate, args[0], first, last, apply)
		if err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			return e.Encode(u)
		}
		return showUndoing(os.Stdout, u, apply)
	}
	return cmd
}

// undo previews an undoing and, where it is to be applied, does it until nothing is
// left. The result is the preview, with the number of decisions that were lifted.
func undo(ctx context.Context, gate *gateAPI, rule string, from, to time.Time, apply bool) (u policies.Undoing, err error) {
	target := "/v1/rules/" + url.PathEscape(rule) + "/undo?" + url.Values{"from": {from.UTC().Format(time.RFC3339Nano)}, "to": {to.UTC().Format(time.RFC3339Nano)}}.Encode()
	ask := func(method string) (u policies.Undoing, err error) {
		text, err := gate.call(ctx, method, target, nil)
		if err == nil {
			err = json.Unmarshal(text, &u)
		}
		return u, err
	}
	if u, err = ask(http.MethodGet); err != nil || !apply {
		return u, err
	}
	for {
		done, err := ask(http.MethodPost)
		u.Lifted += done.Lifted
		if err != nil {
			return u, fmt.Errorf("after %d decisions were lifted; run it again for the rest: %w", u.Lifted, err)
		}
		if !done.More || done.Lifted == 0 {
			return u, nil
		}
	}
}

// showUndoing writes an undoing in words.
func showUndoing(w io.Writer, u policies.Undoing, applied bool) error {
	var b strings.Builder
	more := ""
	if u.More {
		more = " or more"
	}
	fmt.Fprintf(&b, "%d%s decisions of rule %s made from %s to %s still acted.\n", u.Live, more, u.Rule, u.From.UTC().Format(time.RFC3339), u.To.UTC().Format(time.RFC3339))
	for _, scope := range slices.Sorted(maps.Keys(u.Subjects)) {
		fmt.Fprintf(&b, "  %s: %d\n", scope, u.Subjects[scope])
	}
	accounts := 0
	for _, n := range u.Organizations {
		accounts += n
	}
	fmt.Fprintf(&b, "In that time the rule hit %d accounts that are known for a week, of %d organizations.\n", accounts, len(u.Organizations))
	for _, organization := range slices.Sorted(maps.Keys(u.Organizations)) {
		name := organization
		if name == "" {
			name = "(none)"
		}
		fmt.Fprintf(&b, "  %s: %d\n", name, u.Organizations[organization])
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, d := range u.Decisions {
		fmt.Fprintf(t, "  %s\t%s\t%s %s\tuntil %s\t%s\n", d.ID, d.Action, d.Scope, d.Value, d.Until.UTC().Format(time.RFC3339), d.Mode)
	}
	_ = t.Flush() // into memory
	if n := u.Live - len(u.Decisions); n > 0 {
		fmt.Fprintf(&b, "  and %d more\n", n)
	}
	switch {
	case applied:
		fmt.Fprintf(&b, "%d of them were lifted.\n", u.Lifted)
	case u.Live > 0:
		b.WriteString("Nothing was changed: --apply lifts them.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
