// Adds the objects of classes, as the active label image shows them, to the ROI Manager: named CLASS-1, CLASS-2, ...
// Argument: names of classes with commas between, a line end, and the status line of the prediction. Returns "status=ok", or
// "status=error message=TEXT".
words = split(getArgument(), "\n");
wanted = split(words[0], ",");
classes = split(call("ij.Macro.getValue", words[1], "classes", ""), ",");
for (i = 0; i < wanted.length; i++) {
    name = String.trim(wanted[i]);
    value = 0;
    for (j = 0; j < classes.length; j++) {
        cut = indexOf(classes[j], ":");
        if (substring(classes[j], cut + 1) == name)
            value = parseInt(substring(classes[j], 0, cut));
    }
    if (value == 0)
        return "status=error message=expected rois= with names of classes, found " + name + "; the classes are " + String.join(classes, ", ");
    first = roiManager("count");
    setThreshold(value, value);
    options = "size=0-Infinity show=Nothing add";
    if (nSlices > 1)
        options = options + " stack";
    run("Analyze Particles...", options);
    for (k = first; k < roiManager("count"); k++) {
        roiManager("select", k);
        roiManager("rename", name + "-" + (k - first + 1));
    }
}
resetThreshold();
roiManager("deselect");
run("Select None");
return "status=ok";
