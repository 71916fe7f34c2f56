package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/georep/georep/replicator/daemon"
	"github.com/georep/georep/replicator/session"
)

func newVolumeCommand() *cobra.Command {
	o := &daemonClient{}
	c := &cobra.Command{
		Use:   "volume",
		Short: "Name bricks as a volume, mount and unmount it",
	}
	o.addFlag(c)
	c.AddCommand(newVolumeCreateCommand(o), newVolumeListCommand(o), newVolumeShowCommand(o), newVolumeDeleteCommand(o),
		newVolumeStartCommand(o), newVolumeStopCommand(o), newVolumeStatusCommand(o), newGeoReplicationCommand(o))
	return c
}

func newVolumeCreateCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "create NAME BRICK[:MOUNTPOINT]…",
		Short: "Make a volume of bricks on this host",
		Long: `Each BRICK is a directory; it is made a brick if it is none, and what is in it
stays. All get one volume id. Without a MOUNTPOINT a brick is mounted below the
daemon's --mount-dir, /srv/georep/NAME. Nothing is mounted before it is started.

Exit status: 0 created, 1 failed, 2 usage, 3 no such directory, 4 the name or a
brick is taken.`,
		Example: `    $ georep volume create vol0 /bricks/b:/srv/vol0`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			req := daemon.NewVolume{Name: args[0]}
			for _, a := range args[1:] {
				path, point, _ := strings.Cut(a, ":")
				var err error
				if path, err = filepath.Abs(path); err != nil {
					return err
				}
				if point != "" {
					if point, err = filepath.Abs(point); err != nil {
						return err
					}
				}
				req.Bricks = append(req.Bricks, session.Brick{Path: path, Mountpoint: point})
			}
			return o.do(c, "POST", "/v1/volumes", req, nil)
		},
	}
}

func newVolumeListCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List all volumes",
		Long:    `Exit status: 0 listed, 1 failed, 2 usage.`,
		Example: `    $ georep volume list`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var all []daemon.VolumeStatus
			if err := o.do(c, "GET", "/v1/volumes", nil, &all); err != nil {
				return err
			}
			t := newTable(c.OutOrStdout(), "NAME", "STATUS", "BRICKS", "ID")
			for _, v := range all {
				row(t, v.Name, volumeState(&v), fmt.Sprint(len(v.Bricks)), v.ID.String())
			}
			return t.Flush()
		},
	}
}

func volumeState(v *daemon.VolumeStatus) string {
	if !v.Started {
		return "Stopped"
	}
	for _, b := range v.Status {
		if !b.Mounted {
			return "Faulty"
		}
	}
	return "Started"
}

func newVolumeShowCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a volume and its bricks",
		Long:  `Exit status: 0 shown, 1 failed, 2 usage, 3 no such volume.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var v daemon.VolumeStatus
			if err := o.do(c, "GET", pathOf("volumes", args[0]), nil, &v); err != nil {
				return err
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "Name:     %s\nId:       %s\nStatus:   %s\nCreated:  %s\n", v.Name, v.ID, volumeState(&v), timeText(v.Created))
			for _, b := range v.Bricks {
				fmt.Fprintf(w, "Brick:    %s at %s\n", b.Path, b.Mountpoint)
			}
			return nil
		},
	}
}

func newVolumeDeleteCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Forget a volume; what is on its bricks stays",
		Long:  `Exit status: 0 forgotten, 1 failed, 2 usage, 3 no such volume, 4 it is started or has sessions.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.do(c, "DELETE", pathOf("volumes", args[0]), nil, nil)
		},
	}
}

func newVolumeStartCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "start NAME",
		Short: "Mount a volume, and keep it mounted",
		Long:  `Exit status: 0 mounted, 1 failed, 2 usage, 3 no such volume, 4 it is started already.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.do(c, "POST", pathOf("volumes", args[0], "start"), nil, nil)
		},
	}
}

func newVolumeStopCommand(o *daemonClient) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "stop NAME [--force]",
		Short: "Unmount a volume",
		Long: `Sessions of the volume go on: they need its bricks, not the mount.
Exit status: 0 unmounted, 1 failed, 2 usage, 3 no such volume, 4 in use, or not started.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.do(c, "POST", pathOf("volumes", args[0], "stop")+forceQuery(force), nil, nil)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "detach what is in use: it ends when its last user does")
	return c
}

func forceQuery(force bool) string {
	if force {
		return "?force=1"
	}
	return ""
}

func newVolumeStatusCommand(o *daemonClient) *cobra.Command {
	return &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show what is mounted of a volume, or of all",
		Long:  `Exit status: 0 all that is started is mounted, 1 some is not, 2 usage, 3 no such volume.`,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var all []daemon.VolumeStatus
			if len(args) == 0 {
				if err := o.do(c, "GET", "/v1/volumes", nil, &all); err != nil {
					return err
				}
			} else {
				all = make([]daemon.VolumeStatus, 1)
				if err := o.do(c, "GET", pathOf("volumes", args[0]), nil, &all[0]); err != nil {
					return err
				}
			}
			faulty := false
			t := newTable(c.OutOrStdout(), "VOLUME", "BRICK", "MOUNTPOINT", "MOUNTED", "REASON")
			for _, v := range all {
				for _, b := range v.Status {
					mounted := "no"
					if b.Mounted {
						mounted = "yes"
					}
					faulty = faulty || v.Started && !b.Mounted
					row(t, v.Name, b.Path, b.Mountpoint, mounted, b.Reason)
				}
			}
			if err := t.Flush(); err != nil {
				return err
			}
			if faulty {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
}
