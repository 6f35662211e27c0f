//go:build containerd_1_7

package main

import (
	criannotations "github.com/containerd/containerd/v2/internal/cri/annotations"
	customopts "github.com/containerd/containerd/v2/internal/cri/opts"
	"github.com/containerd/containerd/v2/pkg/oci"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mounts(config *runtime.ContainerConfig, extra []*runtime.Mount) oci.SpecOpts {
	return customopts.WithMounts(pretended{}, config, extra, "")
}

func podNamespaces(security *runtime.LinuxContainerSecurityContext) oci.SpecOpts {
	return customopts.WithPodNamespaces(security, sandboxPid, sandboxPid, nil, nil)
}

func annotations(config *runtime.PodSandboxConfig, sandbox bool) []oci.SpecOpts {
	return criannotations.DefaultCRIAnnotations(pod, "web", "docker.io/library/busybox:latest", config, sandbox)
}
