package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/gateway/feed"
	"github.com/kidoban/kidoban/rules"
)

// feedFlags say how a file of log-ins is read.
type feedFlags struct {
	format  string
	options feed.Options
}

func (o *feedFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "jsonl", "what the events are written in: "+strings.Join(feed.Formats, ", "))
	f.Func("zone", "the time `zone` whose clock rules read for events that do not say it, such as Asia/Tokyo (default: UTC)", func(name string) (err error) {
		o.options.Zone, err = rules.Zone(name)
		return err
	})
	f.IntVar(&o.options.Year, "year", 0, "sshd: the year of the first line, if lines have none (default: the latest that is not in the future)")
	f.StringArrayVar(&o.options.Routes, "route", nil, `caddy: requests that are log-ins, a "METHOD PATH" such as "POST /login"; may be repeated`)
	f.IntSliceVar(&o.options.Success, "success", nil, "caddy: status codes of a log-in that worked (default: 200 to 399 with a cookie)")
	f.IntSliceVar(&o.options.Failure, "failure", nil, "caddy: status codes of a log-in that failed (default: 400,401,403,422)")
}
