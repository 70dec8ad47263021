package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "simulate",
		Short: "Tries the gate's judgement without a network",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use, cmd.RunE = "simulate COMMAND", showCommands
			cmd.AddCommand(verdictsCommand())
		},
	})
}
