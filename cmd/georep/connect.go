package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator/slave"
)

// connectOptions say how a slave is reached.
type connectOptions struct {
	create   bool // make an empty directory a slave
	readOnly bool // only look
	logger   *slog.Logger
}

func (o *connectOptions) addFlags(*pflag.FlagSet) {}

// connectSlave connects with the slave at address for the master brick.
func connectSlave(ctx context.Context, master *brick.Brick, address string, o connectOptions) (*slave.Client, error) {
	if !filepath.IsAbs(address) && strings.Contains(address, ":") {
		return nil, usagef("slave %q: only directories on this host so far", address)
	}
	return slave.Local(ctx, address, master, slave.Options{Create: o.create, ReadOnly: o.readOnly, Version: buildVersion(), Logger: o.logger})
}
