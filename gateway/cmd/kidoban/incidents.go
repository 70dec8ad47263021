package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/policies"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "incidents",
		Short: "Lists, shows and moves the incidents that rules propose",
		Long: `
For those who respond. Rules propose incidents; people declare them, and say when they are
contained, eradicated, recovering and closed. All of it asks the operators' API of the
running gate.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "incidents <list|show|move>"
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = showCommands
			cmd.AddCommand(incidentsList(), incidentsShow(), incidentsMove())
		},
	})
}

// incidentPage is what the API lists.
type incidentPage struct {
	Incidents []policies.Incident
	Next      string
}

func incidentsList() *cobra.Command {
	var state string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [--state STATE] [--limit N] --api URL --key-file FILE",
		Short: "Lists incidents, the newest first",
		Long: `
Lists the incidents that are open, or those in a state: proposed, declared, contained,
eradicated, recovering, closed, or any. The role of the key is viewer or more.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&state, "state", "open", "incidents in this `state`")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this `number`, up to 200")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	open := operatorsAPIFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		gate, err := open()
		if err != nil {
			return err
		}
		text, err := gate.call(cmd.Context(), http.MethodGet, "/v1/incidents?"+url.Values{"state": {state}, "limit": {strconv.Itoa(limit)}}.Encode(), nil)
		if err != nil {
			return fmt.Errorf("listing incidents: %w", err)
		}
		var page incidentPage
		return told(os.Stdout, text, asJSON, &page, func() string { return listedIncidents(page, state) })
	}
	return cmd
}

// told writes an answer of the API as it is, or in words once it is read into v.
func told(w io.Writer, answer []byte, asJSON bool, v any, words func() string) error {
	if asJSON {
		_, err := w.Write(answer)
		return err
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return fmt.Errorf("reading what the gate answered: %w", err)
	}
	_, err := io.WriteString(w, words())
	return err
}

// listedIncidents is a page in words.
func listedIncidents(page incidentPage, state string) string {
	if len(page.Incidents) == 0 {
		if state == "any" {
			return "No incident is known.\n"
		}
		return fmt.Sprintf("No incident is %s.\n", state)
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "incident\tstate\tcategory\tof\tfindings\taccounts\tfirst seen\tlast seen")
	for _, i := range page.Incidents {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s %s\t%d\t%s\t%s\t%s\n", i.ID, i.State, i.Category, i.Key, shown(i.Value), i.Found, touched(i), written(i.FirstSeen), written(i.LastSeen))
	}
	_ = t.Flush() // into memory
	if page.Next != "" {
		b.WriteString("There are more: --limit lists up to 200, --state fewer.\n")
	}
	return b.String()
}

func touched(i policies.Incident) string {
	if i.TouchedMore {
		return fmt.Sprintf("%d or more", i.Touched)
	}
	return strconv.Itoa(i.Touched)
}

func written(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// shown is text that somebody else chose, for a terminal: what is not printed there, and
// what would end a column, is written as in Go.
func shown(text string) string {
	quoted := strconv.Quote(text)
	if quoted[1:len(quoted)-1] == text {
		return text
	}
	return quoted
}

func incidentsShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID --api URL --key-file FILE",
		Short: "Shows an incident with what belongs to it",
		Long: `
Shows how an incident came into its states, how long that took, and the first 200 of its
findings, decisions and accounts. kidoban rules explain tells more of a finding or
decision. The role of the key is viewer or more.`,
		Args: one("the id of the incident"),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	open := operatorsAPIFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		gate, err := open()
		if err != nil {
			return err
		}
		text, err := gate.call(cmd.Context(), http.MethodGet, "/v1/incidents/"+url.PathEscape(args[0]), nil)
		if err != nil {
			return fmt.Errorf("incident %s: %w", args[0], err)
		}
		var v policies.IncidentView
		return told(os.Stdout, text, asJSON, &v, func() string { return shownIncident(v) })
	}
	return cmd
}

// shownIncident is an incident in words.
func shownIncident(v policies.IncidentView) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Incident %s: %s of %s %s\n", v.ID, v.Category, v.Key, shown(v.Value))
	names := make([]string, len(v.Rules))
	for n, r := range v.Rules {
		names[n] = string(r)
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  state\t%s\n", v.State)
	fmt.Fprintf(t, "  findings\t%d by %s\n", v.Found, strings.Join(names, ", "))
	fmt.Fprintf(t, "  seen\tfrom %s to %s\n", written(v.FirstSeen), written(v.LastSeen))
	fmt.Fprintf(t, "  accounts\t%s\n", touched(v.Incident))
	for _, x := range []struct {
		name string
		took *policies.Seconds
	}{{"detect (MTTD)", v.Times.Detect}, {"acknowledge (MTTA)", v.Times.Acknowledge}, {"contain (MTTC)", v.Times.Contain}, {"recover (MTTR)", v.Times.Recover}} {
		took := "not yet, or not at all"
		if x.took != nil {
			took = x.took.Duration().Round(time.Second / 10).String()
		}
		fmt.Fprintf(t, "  time to %s\t%s\n", x.name, took)
	}
	_ = t.Flush() // into memory
	b.WriteString("How it came into its states:\n")
	for _, c := range v.Changes {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", written(c.At), c.State, c.By, shown(c.Note))
	}
	_ = t.Flush()
	for _, list := range []struct {
		name string
		all  []string
		of   int
	}{{"Findings", v.Findings, v.Found}, {"Decisions", v.Decisions, len(v.Decisions)}, {"Accounts", v.Accounts, v.Touched}} {
		fmt.Fprintf(&b, "%s:", list.name)
		for _, text := range list.all {
			b.WriteString("\n  " + shown(text))
		}
		switch more := list.of - len(list.all); {
		case more > 0 && len(list.all) > 0:
			fmt.Fprintf(&b, "\n  and %d that are not named, or not kept any more", more)
		case more > 0:
			b.WriteString(" not kept any more")
		case len(list.all) == 0:
			b.WriteString(" none")
		}
		b.WriteString("\n")
	}
	if next := v.State.Next(); len(next) > 0 {
		b.WriteString("It can become:")
		for _, s := range next {
			b.WriteString(" " + string(s))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func incidentsMove() *cobra.Command {
	var note string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "move ID STATE --note TEXT --api URL --key-file FILE",
		Short: "Brings an incident into a state",
		Long: `
Declares an incident, or says that it is contained, eradicated, recovering or closed, on
record in the name of the key, whose role is responder or admin. The note says by which
criteria. What turns out not to be contained or over is declared again; what is closed
stays so. Doing it again changes nothing.`,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("want two arguments, the id of the incident and a state, and got %d: kidoban incidents %s", len(args), cmd.Use)
		}
		return nil
	}
	cmd.Flags().StringVar(&note, "note", "", "by which criteria, a `text` of at most 500 characters")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	open := operatorsAPIFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		to := policies.IncidentState(args[1])
		if err := policies.CheckMove(to, note); err != nil {
			return err
		}
		gate, err := open()
		if err != nil {
			return err
		}
		body := map[string]string{"state": args[1], "note": note}
		text, err := gate.call(cmd.Context(), http.MethodPost, "/v1/incidents/"+url.PathEscape(args[0])+"/state", body)
		if err != nil {
			return fmt.Errorf("incident %s: %w", args[0], err)
		}
		var i policies.Incident
		return told(os.Stdout, text, asJSON, &i, func() string {
			if len(i.Changes) == 0 {
				return fmt.Sprintf("Incident %s is %s.\n", i.ID, i.State)
			}
			last := i.Changes[len(i.Changes)-1]
			return fmt.Sprintf("Incident %s is %s since %s, by %s.\n", i.ID, i.State, written(last.At), last.By)
		})
	}
	return cmd
}
