import groovy.lang.Binding;
import groovy.lang.GroovyShell;
import ij.IJ;
import java.io.File;
import java.nio.file.Files;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * RunGroovy FOLDER SCRIPT: runs a Groovy script in an ImageJ with the plugins of a folder. The script calls
 * {@code command(name, [parameter: value])}, which does what SciJava does with a script in scripts/Plugins/ForestBridge: its
 * parameters (the lines that begin with #@) become variables.
 */
public class RunGroovy {
    private static final Pattern PARAMETER = Pattern.compile("#@ *(\\w+) *\\((.*)\\) *(\\w+)");

    public static void main(String[] args) throws Exception {
        System.setProperty("plugins.dir", args[0]);
        new ij.ImageJ(ij.ImageJ.NO_SHOW);
        IJ.redirectErrorMessages(true);
        Binding binding = new Binding();
        binding.setVariable("folder", new File(args[0]));
        binding.setVariable("runner", new RunGroovy());
        try {
            System.out.println("RESULT " + new GroovyShell(binding).evaluate(new File(args[1])));
        } catch (Throwable e) {
            e.printStackTrace(System.out);
        }
        String log = IJ.getLog();
        System.out.print(log == null ? "" : log);
        System.out.flush();
        Runtime.getRuntime().exit(0);
    }

    /** Run a command with parameters; those that are not given have the values of their #@ lines. */
    public Object command(File folder, String name, java.util.Map<String, Object> given) throws Exception {
        File file = new File(folder, "scripts/Plugins/ForestBridge/" + name.replace(' ', '_') + ".groovy");
        String text = Files.readString(file.toPath());
        Binding binding = new Binding();
        java.util.Set<String> unknown = new java.util.HashSet<>(given.keySet());
        StringBuilder body = new StringBuilder();
        for (String line : text.split("\n")) {
            Matcher m = PARAMETER.matcher(line);
            if (!m.matches()) {
                body.append(line).append('\n');
                continue;
            }
            body.append('\n');
            unknown.remove(m.group(3));
            binding.setVariable(m.group(3), given.containsKey(m.group(3)) ? given.get(m.group(3)) : value(m.group(1), m.group(2)));
        }
        if (!unknown.isEmpty()) throw new IllegalArgumentException(name + " has no parameters " + unknown);
        IJ.redirectErrorMessages(true); // as text in the Log window
        return new GroovyShell(binding).evaluate(body.toString(), name.replace(' ', '_') + ".groovy");
    }

    private static Object value(String type, String attributes) {
        Matcher m = Pattern.compile("value=(\"([^\"]*)\"|\\w+)").matcher(attributes);
        if (!m.find()) throw new IllegalArgumentException("no value in " + attributes);
        String text = m.group(2) == null ? m.group(1) : m.group(2);
        if (type.equals("Integer")) return Integer.valueOf(text);
        return type.equals("Boolean") ? Boolean.valueOf(text) : text;
    }
}
